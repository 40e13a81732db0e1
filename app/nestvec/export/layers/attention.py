"""Self-attention on packed states: the one place where a graph sees sequences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from nestvec.export.graph.builder import MICROSOFT, GraphBuilder
from nestvec.export.graph.inputs import PackedInputs
from nestvec.export.layers.arithmetic import Arithmetic, Linear
from nestvec.export.layers.attention_layers import Attention, for_each_query, normed_heads
from nestvec.export.layers.device_attention import device_attention


class AttentionRoutes(StrEnum):
    """Which ways a graph has through attention; they differ in rounding only."""

    # The contrib attention, maskless for rows of one length; plain ops for short rows of several lengths.
    BY_LENGTH = "by_length"
    # Plain ops, maskless for rows of one length: both ways round alike, which keeps 8-bit steps from flipping.
    ALIKE = "alike"
    # Plain ops of the ONNX standard and no branches, for other runtimes.
    PORTABLE = "portable"


def self_attention(
    graph: GraphBuilder,
    state: str,
    layers: Attention,
    *,
    arithmetic: Arithmetic,
    inputs: PackedInputs,
) -> str:
    """Multi-head self-attention on packed states and its output projection; (T, H) to (T, H).

    Three projections beat one fused one on CPU, since its Split copies. Rows of one length need no mask and no
    gather, and reach the fast kernel that a mask would forbid; others go through a padded view, where the mask
    keeps padding out of every sum. All ways share all weights.
    """
    if inputs.device is not None:
        attended = device_attention(graph, state, layers, inputs)
        return arithmetic.apply(graph, attended, [layers.output])[0]
    value_layer, output_layer = layers.value, layers.output
    if layers.has_plain_heads:
        # Attention averages values, which is linear: what the output layer's input needs, the value layer can give.
        value_layer, output_layer = arithmetic.balance(value_layer, output_layer)
    size = layers.heads * layers.width
    is_portable = inputs.has_equal_lengths is None
    # One pass less over the scores, where only products are scaled.
    is_scaled = is_portable and layers.relate is None
    query_layer = layers.query
    if is_scaled and layers.has_plain_heads:
        query_layer = _scaled(layers.query, layers.factor)
    projected = arithmetic.apply(graph, state, [query_layer, layers.key, value_layer])
    if not layers.has_plain_heads:
        projected = _heads(graph, projected, layers)
        if is_scaled:
            factor = graph.weight("score_factor", np.array(layers.factor, np.float32))
            projected[0] = graph.op("Mul", projected[0], factor)
    ways = _Ways(graph, projected, size, layers, inputs)
    shape = ("T", size)
    if inputs.has_equal_lengths is None:
        attended = ways.plain(is_equal=False, is_scaled=is_scaled)
    elif inputs.has_short_rows is None or layers.has_bias:
        attended = graph.choose(
            inputs.has_equal_lengths,
            lambda: ways.plain(is_equal=True),
            lambda: ways.plain(is_equal=False),
            shape,
        )
    else:
        has_short_rows = inputs.has_short_rows
        attended = graph.choose(
            inputs.has_equal_lengths,
            lambda: ways.contrib(is_equal=True),
            lambda: graph.choose(
                has_short_rows,
                lambda: ways.plain(is_equal=False),
                lambda: ways.contrib(is_equal=False),
                shape,
            ),
            shape,
        )
    return arithmetic.apply(graph, attended, [output_layer])[0]


@dataclass(frozen=True, slots=True)
class _Ways:
    """Ways from projected queries, keys and values, each (T, H), to attended states (T, H)."""

    graph: GraphBuilder
    projected: Sequence[str]
    size: int
    layers: Attention
    inputs: PackedInputs

    def contrib(self, *, is_equal: bool) -> str:
        """Onnxruntime's MultiHeadAttention; without a mask it takes its fast (flash) kernel."""
        rows = self._rows([self.size], is_equal=is_equal)
        # The empty name leaves the bias out: it is in the projections.
        masking = () if is_equal else ("", self.inputs.lengths)
        attended = self.graph.op(
            "MultiHeadAttention",
            *rows,
            *masking,
            domain=MICROSOFT,
            num_heads=self.layers.heads,
            scale=self.layers.factor,
        )
        return self._packed(attended, is_equal=is_equal)

    def plain(self, *, is_equal: bool, is_scaled: bool = False) -> str:
        """Two products and a softmax; `is_scaled` says that the queries are scaled already."""
        graph, layers = self.graph, self.layers
        query, key, value = self._rows([layers.heads, layers.width], is_equal=is_equal)
        query = graph.op("Transpose", query, perm=[0, 2, 1, 3])
        key = graph.op("Transpose", key, perm=[0, 2, 3, 1])
        value = graph.op("Transpose", value, perm=[0, 2, 1, 3])
        if layers.relate is not None:
            related = graph.op("Add", graph.op("MatMul", query, key), layers.relate(query, key))
            factor = graph.weight("score_factor", np.array(layers.factor, np.float32))
            scores = graph.op("Mul", related, factor)
        elif is_scaled:
            scores = graph.op("MatMul", query, key)
        else:
            scores = graph.op("FusedMatMul", query, key, domain=MICROSOFT, alpha=layers.factor)
        if layers.score_bias is not None:
            scores = graph.op("Add", scores, layers.score_bias)
        if not is_equal:
            scores = graph.op("Add", scores, self.inputs.mask)
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
        return self._packed(graph.op("Transpose", mixed, perm=[0, 2, 1, 3]), is_equal=is_equal)

    def _rows(self, tail: list[int], *, is_equal: bool) -> list[str]:
        """The projections as (B, S, *tail); rows of one length are in that order already."""
        graph = self.graph
        name = "rows_" + "_".join(map(str, tail))
        shape = graph.op(
            "Concat",
            graph.op("Shape", self.inputs.gather),
            graph.weight(name, np.array(tail, np.int64)),
            axis=0,
        )
        parts = self.projected
        if not is_equal:
            parts = [graph.op("Gather", part, self.inputs.gather, axis=0) for part in parts]
        return [graph.op("Reshape", part, shape) for part in parts]

    def _packed(self, attended: str, *, is_equal: bool) -> str:
        """(B, S, …) back to (T, H)."""
        flat = self.graph.weight(f"flat_{self.size}", np.array([-1, self.size], np.int64))
        states = self.graph.op("Reshape", attended, flat)
        if is_equal:
            return states
        return self.graph.op("Gather", states, self.inputs.scatter, axis=0)


def _heads(graph: GraphBuilder, projected: list[str], layers: Attention) -> list[str]:
    """What is attended with, each (T, heads, d)."""
    query, key, value = normed_heads(graph, projected, layers)
    if layers.turn is not None:
        query, key = layers.turn.apply(graph, query), layers.turn.apply(graph, key)
    return [query, for_each_query(graph, key, layers), for_each_query(graph, value, layers)]


def _scaled(query: Linear, factor: float) -> Linear:
    """Queries multiplied by a factor in the weights."""
    by = np.float32(factor)
    return replace(query, weight=query.weight * by, bias=query.bias * by)
