"""What a family says of its self-attention; `attention.py` and `device_attention.py` make nodes of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.types import Float32Array
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.blocks import rms_norm
from nestvec.export.layers.masks import FULL_ATTENTION, AttentionMask
from nestvec.export.layers.rotary_embedding import RotaryEmbedding


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """RMS norms of queries and keys (QK norm): over each head, as in Qwen3 and Gemma 3, or over all, as in OLMo 2.

    Attributes:
        name: The attention layer's name.
        query: Scale of the queries' norm, [d], or [heads * d] where it is over all heads.
        key: Scale of the keys' norm, [d] or [kv_heads * d].
        epsilon: Added to the mean square.
        spans_heads: Whether one norm is over all heads together.
    """

    name: str
    query: Float32Array
    key: Float32Array
    epsilon: float
    spans_heads: bool = False

    def apply(self, graph: GraphBuilder, query: str, key: str) -> list[str]:
        """Add the norms of queries and keys, over their last axes."""
        return [
            rms_norm(graph, query, f"{self.name}.q_norm", self.query, self.epsilon),
            rms_norm(graph, key, f"{self.name}.k_norm", self.key, self.epsilon),
        ]


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """One layer's self-attention.

    Attributes:
        query: [H, heads * d].
        key: [H, kv_heads * d].
        value: [H, kv_heads * d].
        output: [heads * d, H].
        heads: Number of query heads.
        kv_heads: Number of key heads and of value heads (grouped-query attention, arXiv:2305.13245); None for `heads`.
        bias: Added to scaled scores, [1, heads or 1, S, S]; None for none.
        bias_rows: Adds the bias of `LOOP_QUERIES` queries from a position (an int64 scalar) on, [1, heads or 1, Q, S];
            None where there is no bias.
        mask: Which tokens are attended to.
        rotary: Rotates queries and keys; None for a family without rotary embeddings.
        norms: Norms of queries and keys, before they are rotated; None for none.
        scale: What scores are multiplied by; None for 1 / sqrt(d).
        score_cap: Scaled scores s become cap · tanh(s / cap) before anything is added to them; None for no cap.
        position_scores: Makes of queries [B, heads, S, d] and keys [B, heads, d, S] what is added to their products
            before scaling, [B, heads, S, S]; None for nothing.
        packed_scores: In graphs for a device instead: makes of packed queries and keys, [T, heads * d] each, what is
            added to scaled scores, [B, heads, S, S].
        output_norm: Adds a norm of what heads give, [T, heads * d], before the output layer; None for none.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int
    kv_heads: int | None = None
    bias: str | None = None
    bias_rows: Callable[[str], str] | None = None
    mask: AttentionMask = FULL_ATTENTION
    rotary: RotaryEmbedding | None = None
    norms: HeadNorms | None = None
    scale: float | None = None
    score_cap: float | None = None
    position_scores: Callable[[str, str], str] | None = None
    packed_scores: Callable[[str, str], str] | None = None
    output_norm: Callable[[str], str] | None = None

    @property
    def head_width(self) -> int:
        """Width of a head, d."""
        return len(self.query.bias) // self.heads

    @property
    def kv_head_count(self) -> int:
        """Number of key heads and of value heads."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def score_scale(self) -> float:
        """What scores are multiplied by."""
        return 1 / math.sqrt(self.head_width) if self.scale is None else self.scale

    @property
    def score_bias(self) -> str | None:
        """What is added to scaled scores for positions, [1, heads or 1, S, S]; None for nothing."""
        return self.bias if self.bias is not None else self.mask.bias

    @property
    def has_bias(self) -> bool:
        """Whether anything is added to scores for positions."""
        return self.score_bias is not None or self.position_scores is not None

    @property
    def has_plain_heads(self) -> bool:
        """Whether projections are attended with as they are: not rotated, not normed, as many key as query heads."""
        return self.rotary is None and self.norms is None and self.kv_head_count == self.heads


def split_and_norm_heads(
    graph: GraphBuilder, projected: list[str], spec: AttentionSpec
) -> list[str]:
    """Split projected queries, keys and values [T, n * d] into heads [T, n, d], and norm them if they have norms."""
    counts = (spec.heads, spec.kv_head_count, spec.kv_head_count)
    if spec.norms is not None and spec.norms.spans_heads:
        projected = [*spec.norms.apply(graph, *projected[:2]), projected[2]]
    query, key, value = (
        graph.split_heads(part, count, spec.head_width)
        for part, count in zip(projected, counts, strict=True)
    )
    if spec.norms is not None and not spec.norms.spans_heads:
        query, key = spec.norms.apply(graph, query, key)
    return [query, key, value]


def capped(graph: GraphBuilder, scores: str, spec: AttentionSpec) -> str:
    """Add the cap of scaled scores (arXiv:2408.00118, section 2), if there is one."""
    if spec.score_cap is None:
        return scores
    cap = graph.weight("score_cap", np.array(spec.score_cap, np.float32))
    return graph.op("Mul", graph.op("Tanh", graph.op("Div", scores, cap)), cap)


def repeat_kv(graph: GraphBuilder, heads: str, spec: AttentionSpec) -> str:
    """Repeat heads of keys or values [T, kv_heads, d] for the query heads that share them: [T, heads, d]."""
    repeats = spec.heads // spec.kv_head_count
    if repeats == 1:
        return heads
    order = np.repeat(np.arange(spec.kv_head_count, dtype=np.int64), repeats)
    return graph.op("Gather", heads, graph.weight("key_heads", order), axis=1)
