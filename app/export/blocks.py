"""Parts that transformer families share, on packed states (T, H). Each takes and gives value names."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.errors import FormatError
from app.export.graph import MICROSOFT, GraphBuilder

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PackedInputs:
    """Names of the packed graph's inputs; see `app/engine/collate.py` for what they hold."""

    ids: str
    positions: str
    gather: str
    scatter: str
    lengths: str
    has_equal_lengths: str


@dataclass(frozen=True, slots=True)
class Attention:
    """Weights of one self-attention: q, k, v as (H, H) by input x output, biases (H,)."""

    query: Floats
    key: Floats
    value: Floats
    query_bias: Floats
    key_bias: Floats
    value_bias: Floats


ACTIVATIONS: Final = {
    "gelu": ("Gelu", {}),
    "gelu_new": ("Gelu", {"approximate": "tanh"}),
    "gelu_pytorch_tanh": ("Gelu", {"approximate": "tanh"}),
    "relu": ("Relu", {}),
}


def packed_inputs(graph: GraphBuilder) -> PackedInputs:
    """Declare the inputs of a packed graph."""
    return PackedInputs(
        ids=graph.input("ids", "int64", ("T",)),
        positions=graph.input("positions", "int64", ("T",)),
        gather=graph.input("gather", "int64", ("B", "S")),
        scatter=graph.input("scatter", "int64", ("T",)),
        lengths=graph.input("lengths", "int32", ("B",)),
        has_equal_lengths=graph.input("has_equal_lengths", "bool", ()),
    )


def linear(graph: GraphBuilder, value: str, name: str, weight: Floats, bias: Floats) -> str:
    """X W + b as one Gemm; `weight` is (in, out). Faster than MatMul + Add, whose Add is its own pass."""
    return graph.op(
        "Gemm", value, graph.weight(f"{name}.weight", weight), graph.weight(f"{name}.bias", bias)
    )


def layer_norm(
    graph: GraphBuilder, value: str, name: str, scale: Floats, bias: Floats, epsilon: float
) -> str:
    """Standard LayerNormalization over the last axis; kept apart from the residual Add on purpose."""
    scale_name = graph.weight(f"{name}.weight", scale)
    bias_name = graph.weight(f"{name}.bias", bias)
    return graph.op("LayerNormalization", value, scale_name, bias_name, axis=-1, epsilon=epsilon)


def activation(graph: GraphBuilder, value: str, kind: str) -> str:
    """A configuration's `hidden_act`.

    Raises:
        FormatError: We have no such activation.
    """
    if kind not in ACTIVATIONS:
        raise FormatError(
            f"config.json: hidden_act '{kind}' is not supported; known: {', '.join(ACTIVATIONS)}"
        )
    op, attributes = ACTIVATIONS[kind]
    return graph.op(op, value, **attributes)


def self_attention(
    graph: GraphBuilder,
    value: str,
    name: str,
    weights: Attention,
    *,
    heads: int,
    inputs: PackedInputs,
) -> str:
    """Multi-head self-attention on packed states; (T, H) to (T, H), before the output projection.

    Three projections beat one fused one on CPU, since its Split copies. Rows of one length need no mask and no
    gather, and reach the fast kernel that a mask would forbid; others go through a padded view, where the key
    lengths keep padding out of every sum. Both ways share all weights and differ in rounding only.
    """
    projected = [
        linear(graph, value, f"{name}.{part}", weight, bias)
        for part, weight, bias in (
            ("query", weights.query, weights.query_bias),
            ("key", weights.key, weights.key_bias),
            ("value", weights.value, weights.value_bias),
        )
    ]
    hidden = weights.query.shape[1]
    flat = graph.weight(f"flat_{hidden}", np.array([-1, hidden], np.int64))

    def equal() -> str:
        """(T, H) is (B, S, H) already."""
        batch = graph.op("Shape", inputs.gather)
        width = graph.weight(f"width_{hidden}", np.array([hidden], np.int64))
        shape = graph.op("Concat", batch, width, axis=0)
        rows = [graph.op("Reshape", part, shape) for part in projected]
        attended = graph.op("MultiHeadAttention", *rows, domain=MICROSOFT, num_heads=heads)
        return graph.op("Reshape", attended, flat)

    def unequal() -> str:
        rows = [graph.op("Gather", part, inputs.gather, axis=0) for part in projected]
        # The empty name leaves the bias out: it is in the projections.
        attended = graph.op(
            "MultiHeadAttention", *rows, "", inputs.lengths, domain=MICROSOFT, num_heads=heads
        )
        return graph.op("Gather", graph.op("Reshape", attended, flat), inputs.scatter, axis=0)

    return graph.choose(inputs.has_equal_lengths, equal, unequal, ("T", hidden))
