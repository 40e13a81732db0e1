"""Parts that transformer families share, on packed states (T, H). Each takes and gives value names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import FormatError
from nestvec.export.graph.builder import MICROSOFT, GraphBuilder
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.build_context import Site

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder in a graph.

    Attributes:
        states: Values (T, H): the embeddings, then each layer's; the last is what pooling takes.
        hidden_size: H.
        end: What stands behind the last layer, such as a norm, and behind an early exit too, (T, H) to (T, H); None
            where nothing does. The last state has it, those before do not.
    """

    states: tuple[str, ...]
    hidden_size: int
    end: Callable[[str], str] | None = None

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self.states) - 1

    def until(self, layer: int) -> "Encoder":
        """The same, as if it had so many layers; `end` is added to the graph anew."""
        states = self.states[: layer + 1]
        if self.end is not None:
            states = (*states[:-1], self.end(states[-1]))
        return Encoder(states, self.hidden_size, self.end)


ACTIVATIONS: Final = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
    "silu": ("Sigmoid", {}),
}


def layer_norm(
    graph: GraphBuilder, value: str, name: str, scale: Floats, bias: Floats, epsilon: float
) -> str:
    """Standard LayerNormalization over the last axis; kept apart from the residual Add on purpose."""
    scale_name = graph.weight(f"{name}.weight", scale)
    if graph.is_for_device and not bias.any():
        return graph.op("LayerNormalization", value, scale_name, axis=-1, epsilon=epsilon)
    bias_name = graph.weight(f"{name}.bias", bias)
    return graph.op("LayerNormalization", value, scale_name, bias_name, axis=-1, epsilon=epsilon)


def rms_norm(graph: GraphBuilder, value: str, name: str, scale: Floats, epsilon: float) -> str:
    """RMS norm over the last axis (arXiv:1910.07467), in ops that every runtime has.

    On a device by onnxruntime's own, whose statistics are float32 whatever the states are in.
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
    """A configuration's `hidden_act`.

    Raises:
        FormatError: We have no such activation.
    """
    if kind not in ACTIVATIONS:
        raise FormatError(
            f"config.json: hidden_act '{kind}' is not supported; known: {', '.join(ACTIVATIONS)}"
        )
    if kind == "silu" and graph.is_for_device:
        return graph.op(
            "QuickGelu", value, domain=MICROSOFT, alpha=1.0
        )  # one kernel: x · sigmoid(x)
    if kind == "silu":
        return graph.op("Mul", value, graph.op("Sigmoid", value))
    op, attributes = ACTIVATIONS[kind]
    return graph.op(op, value, **attributes)


def feed_forward(site: Site, state: str, first: Sequence[Linear], last: Linear, kind: str) -> str:
    """The MLP of a block, (T, H) to (T, H): plain, or gated by a second layer beside the one that is activated.

    Args:
        site: Where it is added.
        state: (T, H).
        first: The layer that is activated, and the one that multiplies it, if any.
        last: Back to H.
        kind: A configuration's `hidden_act`.

    Raises:
        FormatError: We have no such activation.
    """
    wide = site.arithmetic.apply(site.graph, state, first)
    active = activation(site.graph, wide[0], kind)
    for gate in wide[1:]:
        active = site.graph.op("Mul", active, gate)
    return site.arithmetic.apply(site.graph, active, [last])[0]


def normed_rows(rows: Floats, scale: Floats, bias: Floats, epsilon: float) -> Floats:
    """Layer norm of a table, at export; (n, H) float32, computed in float64."""
    wide = rows.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True)
    root = np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)
    found: Floats = (centred / root * scale + bias).astype(np.float32)
    return found
