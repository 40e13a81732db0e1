"""What stands behind an encoder: small graphs from rows to rows, and ends of the main graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import FormatError
from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.arithmetic import Floating, Linear
from nestvec.export.layers.blocks import ACTIVATIONS, Encoder, activation, layer_norm
from nestvec.export.layers.build_context import Site

Floats = NDArray[np.float32]
# The end of a main graph: from the encoder to (value (T, W), W).
Tail = Callable[[Site, Encoder], tuple[str, int]]
PLAIN_OPS: Final = {"tanh": "Tanh", "sigmoid": "Sigmoid"}


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer and what follows it.

    Attributes:
        weight: (in, out), float32.
        bias: (out,), float32.
        activation: "tanh", "sigmoid", one of `blocks.ACTIVATIONS`, or "" for none.
        norm: Scale, bias and epsilon of a layer norm behind it.
    """

    weight: Floats
    bias: Floats
    activation: str = ""
    norm: tuple[Floats, Floats, float] | None = None


def read_dense(
    weights: Weights,
    names: Sequence[str],
    width: int,
    out: int | None,
    *,
    act: str = "",
    needs_bias: bool = True,
) -> Dense:
    """A torch Linear, by the first of several names that a checkpoint has.

    Args:
        weights: The checkpoint.
        names: Without `.weight` and `.bias`.
        width: Of its input.
        out: Of its output; None for as many rows as the tensor has.
        act: What follows.
        needs_bias: Whether a missing bias is an error; else it is zero.

    Raises:
        FormatError: It is missing or of another shape.
    """
    name = next((one for one in names if f"{one}.weight" in weights), names[0])
    rows = weights.shape(f"{name}.weight")[0] if out is None else out
    weight = weights.get(f"{name}.weight", (rows, width)).T
    if needs_bias or f"{name}.bias" in weights:
        return Dense(weight, weights.get(f"{name}.bias", (rows,)), act)
    return Dense(weight, np.zeros(rows, np.float32), act)


def add_dense(graph: GraphBuilder, value: str, layers: Sequence[Dense], name: str) -> str:
    """Layers one after the other, in float32: (n, in) to (n, out)."""
    for number, layer in enumerate(layers):
        own = f"{name}.{number}"
        value = Floating().apply(graph, value, [Linear(own, layer.weight, layer.bias)])[0]
        if layer.activation in PLAIN_OPS:
            value = graph.op(PLAIN_OPS[layer.activation], value)
        elif layer.activation:
            value = activation(graph, value, layer.activation)
        if layer.norm is not None:
            scale, bias, epsilon = layer.norm
            value = layer_norm(graph, value, f"{own}.norm", scale, bias, epsilon)
    return value


def check_activation(name: str, where: str) -> str:
    """An activation behind a dense layer.

    Raises:
        FormatError: We have no such one.
    """
    if name in ("", *PLAIN_OPS, *ACTIVATIONS):
        return name
    raise FormatError(f"{where}: activation '{name}' is not supported")


def export_rows(layers: Sequence[Dense], path: Path) -> None:
    """Write a graph of dense layers: `rows` (B, in) to `pooled` (B, out).

    Raises:
        OSError: The disk is full or read-only.
    """
    graph = GraphBuilder("head")
    rows = graph.input("rows", "float32", ("B", len(layers[0].weight)))
    values = add_dense(graph, rows, layers, "head")
    graph.output(values, "pooled", ("B", layers[-1].weight.shape[1]))
    graph.save(path, f"{path.stem}.bin")


def export_vocabulary(layer: Dense, path: Path, *, merge: str = "max", logarithms: int = 1) -> None:
    """Write a graph from states to weights of all terms: `rows` (n, H) to `pooled` (1, V).

    Source: SPLADE (arXiv:2109.10086), equation 2: log(1 + relu(·)), its maximum over tokens.

    Args:
        layer: To the vocabulary, (H, V).
        path: Where it goes.
        merge: "max" over tokens, or "sum" as in SPLADE's first form.
        logarithms: How often log(1 + ·) is taken.

    Raises:
        OSError: The disk is full or read-only.
    """
    graph = GraphBuilder("vocabulary")
    size, terms = layer.weight.shape
    rows = graph.input("rows", "float32", ("n", size))
    value = graph.op("Relu", add_dense(graph, rows, [layer], "vocabulary"))
    first = graph.weight("first", np.array([0], np.int64))
    one = graph.weight("one", np.array(1, np.float32))
    if merge == "max":  # the same before the logarithm as behind it, and cheaper
        value = graph.op("ReduceMax", value, first, keepdims=1)
    for _ in range(logarithms):
        value = graph.op("Log", graph.op("Add", value, one))
    if merge == "sum":
        value = graph.op("ReduceSum", value, first, keepdims=1)
    graph.output(value, "pooled", (1, terms))
    graph.save(path, f"{path.stem}.bin")


def dense_tail(layers: Sequence[Dense]) -> Tail:
    """Token states through dense layers: a projection, or what an MLM head does before the vocabulary."""

    def tail(site: Site, encoder: Encoder) -> tuple[str, int]:
        value = add_dense(site.graph, encoder.states[-1], layers, "tail")
        return value, layers[-1].weight.shape[1]

    return tail


def side_by_side(parts: Sequence[Dense]) -> Tail:
    """Token states, and beside them what each layer makes of them: (T, H + …)."""

    def tail(site: Site, encoder: Encoder) -> tuple[str, int]:
        state = encoder.states[-1]
        made = [add_dense(site.graph, state, [part], f"side_{n}") for n, part in enumerate(parts)]
        width = encoder.hidden_size + sum(part.weight.shape[1] for part in parts)
        return site.graph.op("Concat", state, *made, axis=-1), width

    return tail


def first_and_last(site: Site, encoder: Encoder) -> tuple[str, int]:
    """Mean of the first layer's states and the last's (arXiv:2103.15316)."""
    graph = site.graph
    first, last = encoder.states[min(1, len(encoder.states) - 1)], encoder.states[-1]
    half = graph.weight("half", np.array(0.5, np.float32))
    return graph.op("Mul", graph.op("Add", first, last), half), encoder.hidden_size
