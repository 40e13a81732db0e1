"""What a family says of its self-attention; `attention.py` and `device_attention.py` make nodes of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.blocks import rms_norm
from nestvec.export.layers.masks import EVERYTHING, Sight
from nestvec.export.layers.rotary import Turn

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """RMS norms of each head of queries and keys.

    Attributes:
        name: Of the layer.
        query: Scale, (d,); `key` likewise.
    """

    name: str
    query: Floats
    key: Floats
    epsilon: float


@dataclass(frozen=True, slots=True)
class Attention:
    """Layers of one self-attention.

    Attributes:
        query: (H, heads · d); `key` and `value` are (H, key heads · d).
        heads: Of queries.
        key_heads: Each shared by as many query heads as it takes; None for as many as those.
        bias: Added to the scores, (1, heads or 1, S, S); None for none.
        sight: Which tokens are looked at.
        turn: By which queries and keys are turned; None where positions are not told so.
        norms: Of queries and keys, before they are turned; None for none.
        scale: What scores are multiplied by; None for 1 / sqrt(d).
        relate: Makes of queries (B, heads, S, d) and keys (B, heads, d, S) what is added to their products before
            scaling, (B, heads, S, S); None for nothing.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int
    key_heads: int | None = None
    bias: str | None = None
    sight: Sight = EVERYTHING
    turn: Turn | None = None
    norms: HeadNorms | None = None
    scale: float | None = None
    relate: Callable[[str, str], str] | None = None

    @property
    def width(self) -> int:
        """Of a head, d."""
        return len(self.query.bias) // self.heads

    @property
    def shared(self) -> int:
        """How many heads of keys and of values there are."""
        return self.heads if self.key_heads is None else self.key_heads

    @property
    def factor(self) -> float:
        """What scores are multiplied by."""
        return 1 / math.sqrt(self.width) if self.scale is None else self.scale

    @property
    def score_bias(self) -> str | None:
        """What is added to scores for positions, (1, heads or 1, S, S)."""
        return self.bias if self.bias is not None else self.sight.mask

    @property
    def has_bias(self) -> bool:
        """Whether something is added to scores."""
        return self.score_bias is not None or self.relate is not None

    @property
    def has_plain_heads(self) -> bool:
        """Whether what is projected is attended with as it is."""
        return self.turn is None and self.norms is None and self.shared == self.heads


def normed_heads(graph: GraphBuilder, projected: list[str], layers: Attention) -> list[str]:
    """Projected queries, keys and values (T, n·d) as heads (T, n, d), the first two normed where they are."""
    counts = (layers.heads, layers.shared, layers.shared)
    query, key, value = (
        graph.split_heads(part, count, layers.width)
        for part, count in zip(projected, counts, strict=True)
    )
    if layers.norms is not None:
        norms = layers.norms
        query = rms_norm(graph, query, f"{norms.name}.q_norm", norms.query, norms.epsilon)
        key = rms_norm(graph, key, f"{norms.name}.k_norm", norms.key, norms.epsilon)
    return [query, key, value]


def for_each_query(graph: GraphBuilder, heads: str, layers: Attention) -> str:
    """Heads of keys or values (T, n, d), each as often as query heads share it."""
    times = layers.heads // layers.shared
    if times == 1:
        return heads
    order = np.repeat(np.arange(layers.shared, dtype=np.int64), times)
    return graph.op("Gather", heads, graph.weight("key_heads", order), axis=1)
