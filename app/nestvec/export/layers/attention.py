"""Self-attention on packed states: the one place where a graph sees sequences."""

from dataclasses import replace
from enum import StrEnum

import numpy as np

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.attention_branches import Branches
from nestvec.export.layers.attention_spec import AttentionSpec, split_and_norm_heads
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.device_attention import device_attention, with_biases_folded


class AttentionOps(StrEnum):
    """Which operators compute attention in a CPU graph; results differ in rounding only."""

    # MultiHeadAttention (a contrib op), without a mask for rows of one length; plain ops for short rows of several
    # lengths.
    BY_LENGTH = "by_length"
    # Plain ops, without a mask for rows of one length: both branches round the same way, which keeps 8-bit steps from
    # flipping.
    SAME_ROUNDING = "same_rounding"
    # Plain ops of the ONNX standard and no branches, for other runtimes.
    PORTABLE = "portable"


def self_attention(context: BuildContext, state: str, spec: AttentionSpec) -> str:
    """Add multi-head self-attention on packed states and its output projection; [T, H] to [T, H].

    Three projections are faster than one fused one on CPU, since splitting copies. Rows of one length need no mask and
    no gather, and reach the fast (flash) kernel that a mask would rule out; others go through a padded view, where the
    mask keeps padding out of every sum. All branches share all weights.

    Raises:
        FormatError: A device graph has no kernel for it in its dtype, or there is no calibration for an input.
    """
    graph, inputs, arithmetic = context.graph, context.inputs, context.arithmetic
    if inputs.device is not None:
        spec = with_biases_folded(spec)
        attended = _normed(device_attention(graph, state, spec, inputs), spec)
        return arithmetic.apply(graph, attended, [spec.output])[0]
    value_layer, output_layer = spec.value, spec.output
    if spec.has_plain_heads and spec.output_norm is None:
        # Attention averages values, which is linear: smoothing that the output layer's input needs can move into the
        # value layer.
        value_layer, output_layer = arithmetic.balance(value_layer, output_layer)
    is_portable = inputs.has_equal_lengths is None
    # Scaling queries saves a pass over the scores; it is possible where nothing is added to products before scaling.
    scales_queries = is_portable and spec.position_scores is None
    query_layer = spec.query
    if scales_queries and spec.has_plain_heads:
        query_layer = _scaled(spec.query, spec.score_scale)
    projected = arithmetic.apply(graph, state, [query_layer, spec.key, value_layer])
    if not spec.has_plain_heads:
        projected = _heads(graph, projected, spec)
        if scales_queries:
            scale = graph.weight("score_factor", np.array(spec.score_scale, np.float32))
            projected[0] = graph.op("Mul", projected[0], scale)
    branches = Branches(graph, projected, spec, inputs)
    branches.note_kind()
    attended = _normed(branches.add(are_queries_scaled=scales_queries), spec)
    return arithmetic.apply(graph, attended, [output_layer])[0]


def _normed(attended: str, spec: AttentionSpec) -> str:
    """Add the norm of what heads give, if there is one."""
    return attended if spec.output_norm is None else spec.output_norm(attended)


def _heads(graph: GraphBuilder, projected: list[str], spec: AttentionSpec) -> list[str]:
    """Make queries [T, heads, d], keys and values [T, kv_heads, d] of projections: normed and rotated."""
    query, key, value = split_and_norm_heads(graph, projected, spec)
    if spec.rotary is not None:
        query, key = spec.rotary.rotate(graph, query), spec.rotary.rotate(graph, key)
    return [query, key, value]


def _scaled(query: Linear, scale: float) -> Linear:
    """Multiply queries by a scale in the layer's weights."""
    by = np.float32(scale)
    return replace(query, weight=query.weight * by, bias=query.bias * by)
