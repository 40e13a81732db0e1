"""Parts that transformer families share, on packed states [T, H]. Each takes and returns names of values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from nestvec.errors import FormatError
from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.types import CONTRIB_DOMAIN, Float32Array
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.build_context import BuildContext


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder in a graph.

    Attributes:
        states: Values [T, H]: the embeddings, then each layer's states; pooling takes the last.
        hidden_size: H.
        finalize: Adds what stands behind the last layer, and behind an early exit too, [T, H] to [T, H]: a final norm,
            for NV-Embed also its latent attention. The last of `states` has it, earlier ones do not. None for nothing.
    """

    states: tuple[str, ...]
    hidden_size: int
    finalize: Callable[[str], str] | None = None

    @classmethod
    def finalized(
        cls, states: Sequence[str], hidden_size: int, finalize: Callable[[str], str]
    ) -> Self:
        """Make an encoder of layers' states, and add `finalize` behind the last."""
        return cls((*states[:-1], finalize(states[-1])), hidden_size, finalize)

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.states) - 1

    def exit_at(self, layer: int) -> "Encoder":
        """Return the encoder as if it ended with this layer; `finalize` is added to the graph anew."""
        states = self.states[: layer + 1]
        if self.finalize is not None:
            return Encoder.finalized(states, self.hidden_size, self.finalize)
        return Encoder(states, self.hidden_size)


# Operator and attributes by a configuration's `hidden_act`, as in transformers' activations.py.
ACTIVATIONS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "silu": ("Sigmoid", {}),
    "quick_gelu": ("Sigmoid", {}),
    "gelu_10": ("Gelu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
    "mish": ("Mish", {}),
    "relu2": ("Relu", {}),
    "relu6": ("Relu", {}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    # Other names of the same functions; they differ in the order of their sums only.
    "gelu_python": ("Gelu", {}),
    "gelu_accurate": ("Gelu", {"approximate": "tanh"}),
    "gelu_fast": ("Gelu", {"approximate": "tanh"}),
    "gelu_python_tanh": ("Gelu", {"approximate": "tanh"}),
    "swish": ("Sigmoid", {}),
}
# Activations x · sigmoid(factor · x), by their factors.
SIGMOID_FACTORS: Final = {"silu": 1.0, "swish": 1.0, "quick_gelu": 1.702}
# Least and most that the activation of the table may give; None for no bound.
BOUNDS: Final[Mapping[str, tuple[float | None, float]]] = {
    "gelu_10": (-10.0, 10.0),
    "relu6": (None, 6.0),
}


def layer_norm(
    graph: GraphBuilder,
    value: str,
    name: str,
    scale: Float32Array,
    bias: Float32Array,
    epsilon: float,
) -> str:
    """Add a LayerNormalization over the last axis.

    It is kept apart from the residual Add on purpose: on CPU, ONNX Runtime's fused SkipLayerNormalization is slower.
    """
    scale_name = graph.weight(f"{name}.weight", scale)
    if graph.is_for_device and not bias.any():
        return graph.op("LayerNormalization", value, scale_name, axis=-1, epsilon=epsilon)
    bias_name = graph.weight(f"{name}.bias", bias)
    return graph.op("LayerNormalization", value, scale_name, bias_name, axis=-1, epsilon=epsilon)


def rms_norm(
    graph: GraphBuilder, value: str, name: str, scale: Float32Array, epsilon: float
) -> str:
    """Add an RMS norm over the last axis (arXiv:1910.07467), in operators that every runtime has.

    On a device it is ONNX Runtime's own operator, which computes its statistics in float32 in every dtype.
    """
    if graph.is_for_device:
        weight = graph.weight(f"{name}.weight", scale)
        return graph.op("SimplifiedLayerNormalization", value, weight, axis=-1, epsilon=epsilon)
    mean = graph.op(
        "ReduceMean",
        graph.op("Mul", value, value),
        graph.weight("last", np.array([-1], np.int64)),
        keepdims=1,
    )
    root = graph.op(
        "Sqrt",
        graph.op("Add", mean, graph.weight(f"{name}.epsilon", np.array(epsilon, np.float32))),
    )
    return graph.op("Mul", graph.op("Div", value, root), graph.weight(f"{name}.weight", scale))


def activation(graph: GraphBuilder, value: str, kind: str) -> str:
    """Add the activation that a configuration calls `hidden_act`.

    Raises:
        FormatError: The activation is not supported.
    """
    if kind not in ACTIVATIONS:
        raise FormatError(
            f"config.json: hidden_act '{kind}' is not supported; known: {', '.join(ACTIVATIONS)}"
        )
    factor = SIGMOID_FACTORS.get(kind)
    if factor is not None and graph.is_for_device:
        # One kernel for x · sigmoid(factor · x).
        return graph.op("QuickGelu", value, domain=CONTRIB_DOMAIN, alpha=factor)
    if factor is not None:
        scaled = value
        if factor != 1:
            scaled = graph.op("Mul", value, _number(graph, f"{kind}.factor", factor))
        return graph.op("Mul", value, graph.op("Sigmoid", scaled))
    op, attributes = ACTIVATIONS[kind]
    activated = graph.op(op, value, **attributes)
    if kind == "relu2":
        return graph.op("Mul", activated, activated)
    if kind in BOUNDS:
        least, most = BOUNDS[kind]
        if least is not None:
            activated = graph.op("Max", activated, _number(graph, f"{kind}.least", least))
        activated = graph.op("Min", activated, _number(graph, f"{kind}.most", most))
    return activated


def _number(graph: GraphBuilder, name: str, value: float) -> str:
    """Add a number to the weights, in the graph's dtype."""
    return graph.weight(name, np.array(value, np.float32))


def feed_forward(
    context: BuildContext, state: str, first: Sequence[Linear], last: Linear, hidden_act: str
) -> str:
    """Add a block's MLP, [T, H] to [T, H]: plain, or gated (GLU, arXiv:2002.05202).

    Args:
        context: The graph in the making.
        state: [T, H].
        first: The layer that is activated; in a gated MLP, then the one that multiplies it.
        last: The layer back to H.
        hidden_act: The configuration's activation.

    Raises:
        FormatError: The activation is not supported.
    """
    projected = context.arithmetic.apply(context.graph, state, first)
    value = activation(context.graph, projected[0], hidden_act)
    for factor in projected[1:]:
        value = context.graph.op("Mul", value, factor)
    return context.arithmetic.apply(context.graph, value, [last])[0]


def normed_rows(
    rows: Float32Array, scale: Float32Array, bias: Float32Array, epsilon: float
) -> Float32Array:
    """Compute the layer norm of a table at export; [n, H] float32, computed in float64."""
    wide = rows.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True)
    root = np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)
    normed: Float32Array = (centred / root * scale + bias).astype(np.float32)
    return normed
