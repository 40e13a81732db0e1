"""What follows an encoder: layers at the end of its graph, and small graphs of their own from rows to rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from onnx import TensorProto

from nestvec.errors import FormatError
from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.types import Float32Array
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.arithmetic import Floating, Linear
from nestvec.export.layers.blocks import ACTIVATIONS, Encoder, activation, layer_norm
from nestvec.export.layers.build_context import BuildContext

# Adds the end of an encoder's graph; returns a value [T, W] and W.
GraphHead = Callable[[BuildContext, Encoder], tuple[str, int]]
# Activations that only heads have, by the operator that is their whole node.
HEAD_ACTIVATIONS: Final = {"tanh": "Tanh", "sigmoid": "Sigmoid"}


@dataclass(frozen=True, slots=True)
class UnitLength:
    """Scales every row to unit length; rows shorter than `MIN_LENGTH` are divided by that, as torch does."""


@dataclass(frozen=True, slots=True)
class Tangent:
    """Takes the hyperbolic tangent of every value."""


@dataclass(frozen=True, slots=True)
class RowNorm:
    """A layer norm of its own.

    Attributes:
        scale: [width], float32.
        bias: [width], float32.
        epsilon: Added to the variance.
    """

    scale: Float32Array
    bias: Float32Array
    epsilon: float


@dataclass(frozen=True, slots=True)
class Standardized:
    """Takes every row's mean away and divides by its standard deviation, that of a sample, plus epsilon.

    Attributes:
        epsilon: Added to the deviation.
    """

    epsilon: float


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer and what follows it.

    Attributes:
        weight: [in, out], float32.
        bias: [out], float32.
        activation: "tanh", "sigmoid", one of `blocks.ACTIVATIONS`, or "" for none.
        norm: Scale, bias and epsilon of a layer norm behind the activation; None for none.
        residual: Whether the input is added to the output; or by what it is multiplied before, [in, out].
    """

    weight: Float32Array
    bias: Float32Array
    activation: str = ""
    norm: tuple[Float32Array, Float32Array, float] | None = None
    residual: bool | Float32Array = False


Layer = Dense | RowNorm | Standardized | Tangent | UnitLength
MIN_LENGTH: Final = 1e-12


def read_dense(
    weights: Weights,
    names: Sequence[str],
    width: int,
    out: int | None,
    *,
    act: str = "",
    needs_bias: bool = True,
) -> Dense:
    """Read a torch Linear under the first of several names that a checkpoint has.

    Args:
        weights: The checkpoint.
        names: Names to try, without `.weight` and `.bias`.
        width: Width of the input.
        out: Width of the output; None for as many as the tensor has rows.
        act: The activation behind the layer; "" for none.
        needs_bias: Whether a missing bias is an error; otherwise it is zero.

    Raises:
        FormatError: A tensor is missing or of another shape.
    """
    name = next((name for name in names if f"{name}.weight" in weights), names[0])
    rows = weights.shape(f"{name}.weight")[0] if out is None else out
    weight = weights.get(f"{name}.weight", (rows, width)).T
    if needs_bias or f"{name}.bias" in weights:
        return Dense(weight, weights.get(f"{name}.bias", (rows,)), act)
    return Dense(weight, np.zeros(rows, np.float32), act)


def add_dense(graph: GraphBuilder, value: str, layers: Sequence[Layer], name: str) -> str:
    """Add layers one after the other in the graph's float dtype: [n, in] to [n, out]."""
    for number, layer in enumerate(layers):
        layer_name = f"{name}.{number}"
        if isinstance(layer, UnitLength):
            value = _unit_length(graph, value)
        elif isinstance(layer, Tangent):
            value = graph.op("Tanh", value)
        elif isinstance(layer, Standardized):
            value = _standardized(graph, value, layer.epsilon)
        elif isinstance(layer, RowNorm):
            value = layer_norm(graph, value, layer_name, layer.scale, layer.bias, layer.epsilon)
        else:
            value = _add_linear(graph, value, layer, layer_name)
    return value


def _add_linear(graph: GraphBuilder, value: str, layer: Dense, name: str) -> str:
    """Add a linear layer and what follows it: [n, in] to [n, out]."""
    before = value
    value = Floating().apply(graph, value, [Linear(name, layer.weight, layer.bias)])[0]
    if layer.activation in HEAD_ACTIVATIONS:
        value = graph.op(HEAD_ACTIVATIONS[layer.activation], value)
    elif layer.activation:
        value = activation(graph, value, layer.activation)
    if layer.norm is not None:
        scale, bias, epsilon = layer.norm
        value = layer_norm(graph, value, f"{name}.norm", scale, bias, epsilon)
    if isinstance(layer.residual, bool):
        return graph.op("Add", value, before) if layer.residual else value
    nothing = np.zeros(layer.residual.shape[1], np.float32)
    projection = Linear(f"{name}.residual", layer.residual, nothing)
    return graph.op("Add", value, Floating().apply(graph, before, [projection])[0])


def _unit_length(graph: GraphBuilder, value: str) -> str:
    """Scale rows to unit length, [n, width]."""
    axis = graph.weight("last_axis", np.array([-1], np.int64))
    least = graph.weight("min_length", np.array(MIN_LENGTH, np.float32))
    squares = graph.op("ReduceSum", graph.op("Mul", value, value), axis, keepdims=1)
    return graph.op("Div", value, graph.op("Max", graph.op("Sqrt", squares), least))


def _standardized(graph: GraphBuilder, value: str, epsilon: float) -> str:
    """Standardize rows, [n, width]."""
    axis = graph.weight("last_axis", np.array([-1], np.int64))
    centred = graph.op("Sub", value, graph.op("ReduceMean", value, axis, keepdims=1))
    squares = graph.op("Mul", centred, centred)
    width = graph.op("Shape", value, start=1)
    others = graph.op("Sub", width, graph.weight("one_count", np.array([1], np.int64)))
    variance = graph.op(
        "Div",
        graph.op("ReduceSum", squares, axis, keepdims=1),
        graph.op("Cast", others, to=TensorProto.FLOAT),
    )
    least = graph.weight("deviation_epsilon", np.array(epsilon, np.float32))
    return graph.op("Div", centred, graph.op("Add", graph.op("Sqrt", variance), least))


def check_activation(name: str, where: str) -> str:
    """Return the name of an activation behind a dense layer if it is supported.

    Args:
        name: The activation; "" for none.
        where: The field or file, for the error.

    Raises:
        FormatError: It is not supported.
    """
    if name in ("", *HEAD_ACTIVATIONS, *ACTIVATIONS):
        return name
    raise FormatError(f"{where}: activation '{name}' is not supported")


def export_rows(layers: Sequence[Layer], path: Path, *, width: int | None = None) -> None:
    """Write a graph of layers from `rows` [B, in] to `pooled` [B, out].

    Args:
        layers: At least one.
        path: Where the graph goes.
        width: Columns of the rows taken; None where the first layer is a dense one, which says it.

    Raises:
        OSError: The disk is full or read-only.
    """
    graph = GraphBuilder("head")
    dense = [layer for layer in layers if isinstance(layer, Dense)]
    width = len(dense[0].weight) if width is None else width
    rows = graph.input("rows", "float32", ("B", width))
    values = add_dense(graph, rows, layers, "head")
    graph.output(values, "pooled", ("B", dense[-1].weight.shape[1] if dense else width))
    graph.save(path, f"{path.stem}.bin")


def export_vocabulary(layer: Dense, path: Path, *, merge: str = "max", logarithms: int = 1) -> None:
    """Write a graph from one input's states `rows` [n, H] to weights of all terms `pooled` [1, V].

    Source: SPLADE (arXiv:2109.10086), equation 2: log(1 + relu(·)), its maximum over tokens.

    Args:
        layer: From states to the vocabulary, [H, V].
        path: Where the graph goes.
        merge: "max" over tokens, or "sum" as in SPLADE's first form (arXiv:2107.05720).
        logarithms: How many times log(1 + ·) is taken.

    Raises:
        OSError: The disk is full or read-only.
    """
    graph = GraphBuilder("vocabulary")
    size, terms = layer.weight.shape
    rows = graph.input("rows", "float32", ("n", size))
    value = graph.op("Relu", add_dense(graph, rows, [layer], "vocabulary"))
    first = graph.weight("first", np.array([0], np.int64))
    one = graph.weight("one", np.array(1, np.float32))
    # The maximum is the same before the logarithm as behind it, and cheaper.
    if merge == "max":
        value = graph.op("ReduceMax", value, first, keepdims=1)
    for _ in range(logarithms):
        value = graph.op("Log", graph.op("Add", value, one))
    if merge == "sum":
        value = graph.op("ReduceSum", value, first, keepdims=1)
    graph.output(value, "pooled", (1, terms))
    graph.save(path, f"{path.stem}.bin")


def dense_head(layers: Sequence[Dense]) -> GraphHead:
    """Make a head of dense layers: a projection, or what an MLM head computes before the vocabulary."""

    def head(context: BuildContext, encoder: Encoder) -> tuple[str, int]:
        value = add_dense(context.graph, encoder.states[-1], layers, "tail")
        return value, layers[-1].weight.shape[1]

    return head


def concatenated_head(parts: Sequence[Dense]) -> GraphHead:
    """Make a head that gives token states and, beside them, each layer's output: [T, H + …]."""

    def head(context: BuildContext, encoder: Encoder) -> tuple[str, int]:
        graph, state = context.graph, encoder.states[-1]
        outputs = [
            add_dense(graph, state, [part], f"side_{number}") for number, part in enumerate(parts)
        ]
        width = encoder.hidden_size + sum(part.weight.shape[1] for part in parts)
        return graph.op("Concat", state, *outputs, axis=-1), width

    return head


def weighted_states(weights: Float32Array, first: int) -> GraphHead:
    """Make a head that gives the weighted mean of layers' states (sentence-transformers' WeightedLayerPooling).

    Args:
        weights: Of each layer from the first on, [layers], float32.
        first: Index of the first layer's states; the word embeddings' are 0.
    """

    def head(context: BuildContext, encoder: Encoder) -> tuple[str, int]:
        graph, states = context.graph, encoder.states[first:]
        if len(states) != len(weights) or not float(weights.sum()):
            raise FormatError(
                f"layer_weights: {len(weights)} weights do not fit the {len(encoder.states)} states from {first} on"
            )
        shares = weights / weights.sum()
        parts = [
            graph.op("Mul", state, graph.weight(f"layer_share_{number}", np.array(share)))
            for number, (state, share) in enumerate(zip(states, shares, strict=True))
        ]
        value = parts[0]
        for part in parts[1:]:
            value = graph.op("Add", value, part)
        return value, encoder.hidden_size

    return head


def first_last_average(context: BuildContext, encoder: Encoder) -> tuple[str, int]:
    """Add the mean of the first layer's states and the last's, a head (arXiv:2103.15316)."""
    graph = context.graph
    first, last = encoder.states[min(1, len(encoder.states) - 1)], encoder.states[-1]
    half = graph.weight("half", np.array(0.5, np.float32))
    return graph.op("Mul", graph.op("Add", first, last), half), encoder.hidden_size
