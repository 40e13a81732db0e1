"""Rotary positions: queries and keys turned by angles that grow with the position.

Source: RoFormer (arXiv:2104.09864), in the layout of Hugging Face's models: a head's halves are the pairs.
"""

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from app.export.frequencies import Frequencies
from app.export.graph import GraphBuilder


@dataclass(frozen=True, slots=True)
class Turn:
    """Values (T, 1, d) by which heads are turned."""

    cosine: str
    sine: str

    def apply(self, graph: GraphBuilder, heads: str) -> str:
        """Heads (T, n, d), turned."""
        first, second = graph.split(heads, 2)
        turned = graph.op("Concat", graph.op("Neg", second), first, axis=-1)
        return graph.op(
            "Add", graph.op("Mul", heads, self.cosine), graph.op("Mul", turned, self.sine)
        )


def turned_heads(
    graph: GraphBuilder, projected: list[str], turn: Turn, *, count: int, width: int
) -> list[str]:
    """Projected queries, keys and values (T, n·d) as heads (T, n, d), the first two turned."""
    query, key, value = (graph.split_heads(part, count, width) for part in projected)
    return [turn.apply(graph, query), turn.apply(graph, key), value]


def rotary(graph: GraphBuilder, positions: str, frequencies: Frequencies, name: str = "") -> Turn:
    """Angles of every token.

    Args:
        graph: What they are added to.
        positions: (T,), int64.
        frequencies: Of each pair.
        name: Tells them from others in the same graph.
    """
    weight = graph.weight(f"frequencies{name}", frequencies.values[None])
    column = graph.weight("column", np.array([1], np.int64))
    place = graph.op("Unsqueeze", graph.op("Cast", positions, to=TensorProto.FLOAT), column)
    angle = graph.op("Mul", place, weight)
    whole = graph.op("Unsqueeze", graph.op("Concat", angle, angle, axis=-1), column)
    turn = Turn(graph.op("Cos", whole), graph.op("Sin", whole))
    if frequencies.factor == 1:
        return turn
    factor = graph.weight(f"frequencies{name}.factor", np.array(frequencies.factor, np.float32))
    return Turn(graph.op("Mul", turn.cosine, factor), graph.op("Mul", turn.sine, factor))
