"""Rotary positions: queries and keys turned by angles that grow with the position.

Source: RoFormer (arXiv:2104.09864), in the layout of Hugging Face's models: a head's halves are the pairs.
"""

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.layers.frequencies import Frequencies


@dataclass(frozen=True, slots=True)
class Turn:
    """How heads are turned.

    Attributes:
        cosine: A value (T, 1, d).
        sine: Likewise.
        positions: (T,), int64.
        frequencies: Of each pair.
        longest: The most positions.
        name: Tells it from others in the same graph.
    """

    cosine: str
    sine: str
    positions: str
    frequencies: Frequencies
    longest: int
    name: str = ""

    def apply(self, graph: GraphBuilder, heads: str) -> str:
        """Heads (T, n, d), turned."""
        first, second = graph.split(heads, 2)
        turned = graph.op("Concat", graph.op("Neg", second), first, axis=-1)
        return graph.op(
            "Add", graph.op("Mul", heads, self.cosine), graph.op("Mul", turned, self.sine)
        )


def rotary(
    graph: GraphBuilder, positions: str, frequencies: Frequencies, longest: int, name: str = ""
) -> Turn:
    """Angles of every token, in float32 whatever the graph computes in.

    Args:
        graph: What they are added to.
        positions: (T,), int64.
        frequencies: Of each pair.
        longest: The most positions.
        name: Tells them from others in the same graph.
    """
    made = (positions, frequencies, longest, name)
    weight = graph.weight(f"frequencies{name}", frequencies.values[None], is_exact=True)
    column = graph.weight("column", np.array([1], np.int64))
    place = graph.op("Unsqueeze", graph.op("Cast", positions, to=TensorProto.FLOAT), column)
    angle = graph.op("Mul", place, weight)
    whole = graph.op("Unsqueeze", graph.op("Concat", angle, angle, axis=-1), column)
    cosine, sine = graph.op("Cos", whole), graph.op("Sin", whole)
    if frequencies.factor == 1:
        return Turn(cosine, sine, *made)
    factor = graph.weight(
        f"frequencies{name}.factor", np.array(frequencies.factor, np.float32), is_exact=True
    )
    return Turn(graph.op("Mul", cosine, factor), graph.op("Mul", sine, factor), *made)
