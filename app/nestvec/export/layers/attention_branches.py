"""The ways in which CPU graphs compute attention, and the branches that choose among them by the lengths of inputs.

All branches share all weights. Results differ in rounding only.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.inputs import BlockInputs, PackedInputs
from nestvec.export.graph.types import CONTRIB_DOMAIN
from nestvec.export.layers.attention_spec import AttentionSpec, capped, repeat_kv
from nestvec.export.layers.masks import LOOP_QUERIES, mask_rows

# Key of the graph's metadata for what its layers compute, a JSON list of [layers, window, is_causal], 0 where no window
# saves work.
KINDS: Final = "nestvec.attention"


@dataclass(frozen=True, slots=True)
class Branches:
    """Ways to compute attended states [T, heads * d] from projected queries, keys and values.

    Attributes:
        graph: Takes the nodes.
        projected: Queries [T, heads * d], keys and values [T, kv_heads * d], or all with heads as an axis of their own.
        spec: The layer's attention.
        inputs: The graph's inputs.
    """

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
        inputs, spec = self.inputs, self.spec
        if inputs.has_equal_lengths is None:
            return self._portable(are_queries_scaled=are_queries_scaled)
        if not spec.has_bias:
            return self._unbiased()
        blocks = spec.mask.blocks
        if self.is_grouped and inputs.has_short_rows is not None:
            return self._either(inputs.sees_all, lambda: self._grouped(blocks), self._plain_either)
        way: Callable[[], str]
        condition: str | None = inputs.is_long
        if blocks is not None:
            way = partial(self._windowed, blocks)
        elif self.is_grouped:
            way = partial(self.grouped, is_equal=True)
        else:
            way = self.looped
            condition = None if spec.position_scores is not None else inputs.is_looped
        return self._either(condition, way, self._plain_either)

    def _portable(self, *, are_queries_scaled: bool) -> str:
        """Standard ops without branches; for windows the layout of blocks says which keys there are."""
        blocks = self.spec.mask.blocks
        if blocks is not None:
            return self.blocks(blocks, are_queries_scaled=are_queries_scaled)
        return self.plain(is_equal=False, are_queries_scaled=are_queries_scaled)

    def note_kind(self) -> None:
        """Count the layer in the graph's metadata by what it computes, which prices of batches depend on."""
        mask = self.spec.mask
        window = mask.window if mask.blocks is not None else 0
        kind = [window, self.is_grouped or (mask.is_causal and window > 0)]
        kinds = json.loads(self.graph.metadata.get(KINDS, "[]"))
        known = next((row for row in kinds if row[1:] == kind), None)
        if known is None:
            kinds.append([1, *kind])
        else:
            known[0] += 1
        self.graph.metadata[KINDS] = json.dumps(kinds)

    @property
    def is_grouped(self) -> bool:
        """Whether GroupQueryAttention computes it, where no token is hidden from the others."""
        spec = self.spec
        has_terms = spec.bias is not None or spec.position_scores is not None
        return spec.mask.grouped is not None and not has_terms

    def _either(
        self, condition: str | None, then: Callable[[], str], otherwise: Callable[[], str]
    ) -> str:
        if condition is None:
            return otherwise()
        return self.graph.if_else(condition, then, otherwise, ("T", self.size))

    def _by_equality(self, way: Callable[..., str]) -> str:
        """Add a way for rows of one length, and for others."""
        return self._either(
            self.inputs.has_equal_lengths, partial(way, is_equal=True), partial(way, is_equal=False)
        )

    def _unbiased(self) -> str:
        """Full attention: rows of one length need no mask, and with ONNX Runtime's own kernel no matrix of scores."""
        inputs = self.inputs
        if self.spec.score_cap is not None:
            return self._plain_either()
        if inputs.has_short_rows is None:
            return self._either(
                inputs.is_long, lambda: self.contrib(is_equal=True), self._plain_either
            )
        return self._either(
            inputs.has_equal_lengths,
            lambda: self.contrib(is_equal=True),
            lambda: self._either(
                inputs.has_short_rows,
                lambda: self.plain(is_equal=False),
                lambda: self.contrib(is_equal=False),
            ),
        )

    def _plain_either(self) -> str:
        """Scores as a whole, for short inputs and mixed ones."""
        return self._by_equality(self.plain)

    def _windowed(self, blocks: BlockInputs) -> str:
        """Long inputs in blocks, but for those that are no longer than the window."""
        whole = (
            partial(self.grouped, is_equal=True)
            if self.is_grouped
            else partial(
                self._by_equality, self.contrib if self.spec.score_cap is None else self.plain
            )
        )
        return self._either(self.spec.mask.is_open, whole, lambda: self.blocks(blocks))

    def _grouped(self, blocks: BlockInputs | None) -> str:
        """Causal attention without a mask of its own; windows in blocks where they are narrow and inputs long."""
        rows = partial(self._by_equality, self.grouped)
        if blocks is None:
            return rows()
        is_open = self.spec.mask.is_open
        if is_open is not None:
            return self._either(is_open, rows, lambda: self.blocks(blocks))
        return self._either(self.inputs.is_long, lambda: self.blocks(blocks), rows)

    def grouped(self, *, is_equal: bool) -> str:
        """Add ONNX Runtime's GroupQueryAttention, which is causal: padding behind an input is never seen."""
        graph, spec = self.graph, self.spec
        lengths = spec.mask.grouped
        if lengths is None:
            raise ValueError("not a mask that it computes")
        size = spec.kv_head_count * spec.head_width
        query = self._rows(self.projected[0], [self.size], is_equal=is_equal)
        key, value = (self._rows(part, [size], is_equal=is_equal) for part in self.projected[1:])
        window = {"local_window_size": spec.mask.window} if spec.mask.window else {}
        cap = {} if spec.score_cap is None else {"softcap": spec.score_cap}
        # Its outputs of keys and values must be named: without them it computes all scores.
        attended, *_ = graph.op_outputs(
            "GroupQueryAttention",
            3,
            *(query, key, value, "", "", lengths.last, lengths.total),
            domain=CONTRIB_DOMAIN,
            num_heads=spec.heads,
            kv_num_heads=spec.kv_head_count,
            scale=spec.score_scale,
            **window,
            **cap,
        )
        return self._packed(attended, is_equal=is_equal)

    def blocks(self, blocks: BlockInputs, *, are_queries_scaled: bool = False) -> str:
        """Add windowed attention of blocks of queries to the keys around them; inputs of any lengths, no padding."""
        graph, spec = self.graph, self.spec
        query, *keys_values = self._repeated()
        query = graph.op("Gather", self._flat(query), blocks.queries, axis=0)
        key, value = (
            graph.op("Gather", self._flat(part), blocks.keys, axis=0) for part in keys_values
        )
        if self.inputs.has_equal_lengths is not None and spec.score_cap is None:
            attended = graph.op(
                "MultiHeadAttention",
                *(query, key, value, "", "", blocks.mask),
                domain=CONTRIB_DOMAIN,
                num_heads=spec.heads,
                scale=spec.score_scale,
            )
        else:
            shape = graph.weight(
                f"rows_of_{spec.heads}_{spec.head_width}",
                np.array([0, 0, spec.heads, spec.head_width], np.int64),
            )
            rows = [graph.op("Reshape", part, shape) for part in (query, key, value)]
            attended = self._mixed(rows, [blocks.mask], are_queries_scaled=are_queries_scaled)
        return graph.op("Gather", self._flat(attended), blocks.scatter, axis=0)

    def looped(self) -> str:
        """Add plain attention of a few queries after the other, so that their scores and biases stay in the cache."""
        return self._by_equality(self._looped)

    def _looped(self, *, is_equal: bool) -> str:
        graph, spec = self.graph, self.spec
        axes = [spec.heads, spec.head_width]
        query, key, value = (self._rows(part, axes, is_equal=is_equal) for part in self._repeated())
        key = graph.op("Transpose", key, perm=[0, 2, 3, 1])
        value = graph.op("Transpose", value, perm=[0, 2, 1, 3])
        step_queries = graph.weight("loop_step", np.array(LOOP_QUERIES, np.int64))
        one = graph.weight("one", np.array(1, np.int64))
        longest = graph.op("Squeeze", graph.op("Shape", self.inputs.gather, start=1, end=2))
        last = graph.op("Sub", longest, step_queries)
        axis = graph.weight("row_axis", np.array([1], np.int64))
        first_axis = graph.weight("first_axis", np.array([0], np.int64))

        def step(number: str) -> str:
            # The last step ends with the input: some of its queries are those of the step before.
            first = graph.op(
                "Squeeze", graph.op("Min", graph.op("Mul", number, step_queries), last)
            )
            start = graph.op("Unsqueeze", first, first_axis)
            count = graph.weight("loop_queries", np.array([LOOP_QUERIES], np.int64))
            part = graph.op("Slice", query, start, graph.op("Add", start, count), axis)
            part = graph.op("Transpose", part, perm=[0, 2, 1, 3])
            scores = graph.op(
                "FusedMatMul", part, key, domain=CONTRIB_DOMAIN, alpha=spec.score_scale
            )
            scores = graph.op("Add", capped(graph, scores, spec), self._bias_rows(first))
            if not is_equal:
                scores = graph.op("Add", scores, self.inputs.padding_mask)
            mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
            return graph.op("Transpose", mixed, perm=[0, 2, 1, 3])

        steps = graph.op(
            "Div", graph.op("Add", last, graph.op("Sub", step_queries, one)), step_queries
        )
        steps = graph.op("Add", steps, one)
        shape = ("B", LOOP_QUERIES, spec.heads, spec.head_width)
        stacked = graph.loop(steps, step, shape)
        rows = graph.op("Transpose", stacked, perm=[1, 0, 2, 3, 4])
        return self._packed(
            graph.op(
                "Gather", self._steps_as_rows(rows), self._step_indices(steps, longest), axis=1
            ),
            is_equal=is_equal,
        )

    def _bias_rows(self, first: str) -> str:
        """Add the bias of the queries of a step, [1, heads or 1, Q, S]."""
        if self.spec.bias_rows is not None:
            return self.spec.bias_rows(first)
        return mask_rows(self.graph, self.inputs, self.spec.mask, first)

    def _steps_as_rows(self, rows: str) -> str:
        """Reshape [B, steps, Q, heads, d] to [B, steps * Q, heads * d]."""
        shape = self.graph.weight(f"loop_rows_{self.size}", np.array([0, -1, self.size], np.int64))
        flat = self.graph.weight(f"loop_flat_{self.size}", np.array([0, 0, 0, self.size], np.int64))
        return self.graph.op("Reshape", self.graph.op("Reshape", rows, flat), shape)

    def _step_indices(self, steps: str, longest: str) -> str:
        """Where each position's row is among those of all steps, [S]: the last step begins where it has to."""
        graph = self.graph
        zero = graph.weight("zero", np.array(0, np.int64))
        one = graph.weight("one", np.array(1, np.int64))
        step_queries = graph.weight("loop_step", np.array(LOOP_QUERIES, np.int64))
        positions = graph.op("Range", zero, longest, one)
        whole = graph.op("Mul", graph.op("Sub", steps, one), step_queries)
        overlap = graph.op("Sub", graph.op("Mul", steps, step_queries), longest)
        moved = graph.op("Add", positions, overlap)
        return graph.op("Where", graph.op("Less", positions, whole), positions, moved)

    def contrib(self, *, is_equal: bool) -> str:
        """Add ONNX Runtime's MultiHeadAttention; without a mask it takes its fast (flash) kernel."""
        rows = [self._rows(part, [self.size], is_equal=is_equal) for part in self._repeated()]
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
        spec = self.spec
        axes = [spec.heads, spec.head_width]
        rows = [self._rows(part, axes, is_equal=is_equal) for part in self._repeated()]
        biases = [] if spec.score_bias is None else [spec.score_bias]
        if not is_equal:
            biases.append(self.inputs.padding_mask)
        mixed = self._mixed(rows, biases, are_queries_scaled=are_queries_scaled)
        return self._packed(mixed, is_equal=is_equal)

    def _mixed(
        self, rows: Sequence[str], biases: Sequence[str], *, are_queries_scaled: bool
    ) -> str:
        """Mix values [B, K, heads, d] by the scores of queries [B, S, heads, d] and keys: [B, S, heads, d]."""
        graph, spec = self.graph, self.spec
        query, key, value = rows
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
        scores = capped(graph, scores, spec)
        for bias in biases:
            scores = graph.op("Add", scores, bias)
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
        return graph.op("Transpose", mixed, perm=[0, 2, 1, 3])

    def _repeated(self) -> list[str]:
        """Queries, keys and values, those of heads that several query heads share once for each of them."""
        query, key, value = self.projected
        return [query, *(repeat_kv(self.graph, part, self.spec) for part in (key, value))]

    def _rows(self, part: str, axes: list[int], *, is_equal: bool) -> str:
        """One of the projections as [B, S, *axes]; tokens of rows of one length are in that order already."""
        graph = self.graph
        name = "rows_" + "_".join(map(str, axes))
        shape = graph.op(
            "Concat",
            graph.op("Shape", self.inputs.gather),
            graph.weight(name, np.array(axes, np.int64)),
            axis=0,
        )
        if not is_equal:
            part = graph.op("Gather", part, self.inputs.gather, axis=0)
        return graph.op("Reshape", part, shape)

    def _flat(self, states: str) -> str:
        """Reshape […, heads, d] or […, heads * d] to [tokens or cells, heads * d]."""
        flat = self.graph.weight(f"flat_{self.size}", np.array([-1, self.size], np.int64))
        return self.graph.op("Reshape", states, flat)

    def _packed(self, attended: str, *, is_equal: bool) -> str:
        """Reshape [B, S, …] back to [T, heads * d]."""
        states = self._flat(attended)
        if is_equal:
            return states
        return self.graph.op("Gather", states, self.inputs.scatter, axis=0)
