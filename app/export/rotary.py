"""Rotary positions: queries and keys turned by angles that grow with the position.

Source: RoFormer (arXiv:2104.09864), in the layout of Hugging Face's models: a head's halves are the pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from app.errors import FormatError
from app.export.config_fields import positive_number
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


def rotary(graph: GraphBuilder, positions: str, *, theta: float, width: int) -> Turn:
    """Angles of every token.

    Args:
        graph: What they are added to.
        positions: (T,), int64.
        theta: Base of the wavelengths.
        width: Of a head, d.
    """
    steps = np.arange(0, width, 2, dtype=np.float32) / width
    frequency = graph.weight(
        f"rotary_{theta:g}_{width}", (1.0 / theta**steps)[None].astype(np.float32)
    )
    column = graph.weight("column", np.array([1], np.int64))
    place = graph.op("Unsqueeze", graph.op("Cast", positions, to=TensorProto.FLOAT), column)
    angle = graph.op("Mul", place, frequency)
    whole = graph.op("Unsqueeze", graph.op("Concat", angle, angle, axis=-1), column)
    return Turn(graph.op("Cos", whole), graph.op("Sin", whole))


def theta_of(config: Mapping[str, Any]) -> float:
    """The base, under its old name or its new one.

    Raises:
        FormatError: Positions are scaled in a way that this graph is not.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise FormatError("config.json: 'rope_parameters' must be an object")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise FormatError(f"config.json: rope_type '{kind}' is not supported")
    found = rope if "rope_theta" in rope else config
    return positive_number(found, "rope_theta", 10_000.0)
