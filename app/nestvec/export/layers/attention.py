"""Self-attention on packed states: the one place where a graph sees sequences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.inputs import PackedInputs
from nestvec.export.graph.types import CONTRIB_DOMAIN
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.attention_spec import AttentionSpec, repeat_kv, split_and_norm_heads
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.device_attention import device_attention


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
        attended = device_attention(graph, state, spec, inputs)
        return arithmetic.apply(graph, attended, [spec.output])[0]
    value_layer, output_layer = spec.value, spec.output
    if spec.has_plain_heads:
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
    branches = _Branches(graph, projected, spec, inputs)
    attended = branches.add(are_queries_scaled=scales_queries)
    return arithmetic.apply(graph, attended, [output_layer])[0]


@dataclass(frozen=True, slots=True)
class _Branches:
    """Ways to compute attended states [T, heads * d] from projected queries, keys and values, each [T, heads * d]."""

    graph: GraphBuilder
    projected: Sequence[str]
    spec: AttentionSpec
    inputs: PackedInputs

    @property
    def size(self) -> int:
        """Width of all heads together."""
        return self.spec.heads * self.spec.head_width

    def add(self, *, are_queries_scaled: bool) -> str:
        """Add the branches that the graph's inputs choose among."""
        graph, inputs, shape = self.graph, self.inputs, ("T", self.size)
        if inputs.has_equal_lengths is None:
            return self.plain(is_equal=False, are_queries_scaled=are_queries_scaled)
        if inputs.has_short_rows is None or self.spec.has_bias:
            return graph.if_else(
                inputs.has_equal_lengths,
                lambda: self.plain(is_equal=True),
                lambda: self.plain(is_equal=False),
                shape,
            )
        has_short_rows = inputs.has_short_rows
        return graph.if_else(
            inputs.has_equal_lengths,
            lambda: self.contrib(is_equal=True),
            lambda: graph.if_else(
                has_short_rows,
                lambda: self.plain(is_equal=False),
                lambda: self.contrib(is_equal=False),
                shape,
            ),
            shape,
        )

    def contrib(self, *, is_equal: bool) -> str:
        """Add ONNX Runtime's MultiHeadAttention; without a mask it takes its fast (flash) kernel."""
        rows = self._rows([self.size], is_equal=is_equal)
        # The empty name leaves the bias out: it is part of the projections.
        key_lengths = () if is_equal else ("", self.inputs.lengths)
        attended = self.graph.op(
            "MultiHeadAttention",
            *rows,
            *key_lengths,
            domain=CONTRIB_DOMAIN,
            num_heads=self.spec.heads,
            scale=self.spec.score_scale,
        )
        return self._packed(attended, is_equal=is_equal)

    def plain(self, *, is_equal: bool, are_queries_scaled: bool = False) -> str:
        """Add two products and a softmax."""
        graph, spec = self.graph, self.spec
        query, key, value = self._rows([spec.heads, spec.head_width], is_equal=is_equal)
        query = graph.op("Transpose", query, perm=[0, 2, 1, 3])
        key = graph.op("Transpose", key, perm=[0, 2, 3, 1])
        value = graph.op("Transpose", value, perm=[0, 2, 1, 3])
        if spec.position_scores is not None:
            product = graph.op("MatMul", query, key)
            unscaled = graph.op("Add", product, spec.position_scores(query, key))
            scale = graph.weight("score_factor", np.array(spec.score_scale, np.float32))
            scores = graph.op("Mul", unscaled, scale)
        elif are_queries_scaled:
            scores = graph.op("MatMul", query, key)
        else:
            scores = graph.op(
                "FusedMatMul", query, key, domain=CONTRIB_DOMAIN, alpha=spec.score_scale
            )
        if spec.score_bias is not None:
            scores = graph.op("Add", scores, spec.score_bias)
        if not is_equal:
            scores = graph.op("Add", scores, self.inputs.padding_mask)
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
        return self._packed(graph.op("Transpose", mixed, perm=[0, 2, 1, 3]), is_equal=is_equal)

    def _rows(self, axes: list[int], *, is_equal: bool) -> list[str]:
        """The projections as [B, S, *axes]; tokens of rows of one length are in that order already."""
        graph = self.graph
        name = "rows_" + "_".join(map(str, axes))
        shape = graph.op(
            "Concat",
            graph.op("Shape", self.inputs.gather),
            graph.weight(name, np.array(axes, np.int64)),
            axis=0,
        )
        parts = self.projected
        if not is_equal:
            parts = [graph.op("Gather", part, self.inputs.gather, axis=0) for part in parts]
        return [graph.op("Reshape", part, shape) for part in parts]

    def _packed(self, attended: str, *, is_equal: bool) -> str:
        """Reshape [B, S, …] back to [T, heads * d]."""
        flat = self.graph.weight(f"flat_{self.size}", np.array([-1, self.size], np.int64))
        states = self.graph.op("Reshape", attended, flat)
        if is_equal:
            return states
        return self.graph.op("Gather", states, self.inputs.scatter, axis=0)


def _heads(graph: GraphBuilder, projected: list[str], spec: AttentionSpec) -> list[str]:
    """Make queries, keys and values, each [T, heads, d], of projections: normed, rotated and repeated."""
    query, key, value = split_and_norm_heads(graph, projected, spec)
    if spec.rotary is not None:
        query, key = spec.rotary.rotate(graph, query), spec.rotary.rotate(graph, key)
    return [query, repeat_kv(graph, key, spec), repeat_kv(graph, value, spec)]


def _scaled(query: Linear, scale: float) -> Linear:
    """Multiply queries by a scale in the layer's weights."""
    by = np.float32(scale)
    return replace(query, weight=query.weight * by, bias=query.bias * by)
