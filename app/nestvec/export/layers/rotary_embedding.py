"""Rotary position embeddings: queries and keys are rotated by angles that grow with the position.

Source: RoFormer (arXiv:2104.09864), in the layout of Hugging Face's models: the two halves of a head are the pairs.
"""

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.inputs import PackedInputs
from nestvec.export.layers.rotary_frequencies import RotaryFrequencies


@dataclass(frozen=True, slots=True)
class RotaryEmbedding:
    """How heads are rotated.

    Attributes:
        cosine: A value [T, 1, d].
        sine: A value [T, 1, d].
        positions: A value [T], int64.
        frequencies: Angles per position.
        max_positions: How many positions the model has.
        name: Distinguishes it from others in the same graph; "" where there is one.
    """

    cosine: str
    sine: str
    positions: str
    frequencies: RotaryFrequencies
    max_positions: int
    name: str = ""

    def rotate(self, graph: GraphBuilder, heads: str) -> str:
        """Rotate heads [T, n, d]."""
        first, second = graph.split(heads, 2)
        swapped = graph.op("Concat", graph.op("Neg", second), first, axis=-1)
        return graph.op(
            "Add", graph.op("Mul", heads, self.cosine), graph.op("Mul", swapped, self.sine)
        )


def rotary_embedding(
    graph: GraphBuilder,
    inputs: PackedInputs,
    frequencies: RotaryFrequencies,
    max_positions: int,
    name: str = "",
) -> RotaryEmbedding:
    """Add every token's angles to a graph, computed in float32 whatever the graph's dtype is.

    Args:
        graph: Takes the nodes.
        inputs: The graph's inputs.
        frequencies: Angles per position.
        max_positions: How many positions the model has.
        name: Distinguishes the angles from others in the same graph.
    """
    if inputs.is_portable:
        cosine, sine = _looked_up(graph, inputs.positions, frequencies, max_positions, name)
    else:
        cosine, sine = _computed(graph, inputs.positions, frequencies, name)
    return RotaryEmbedding(cosine, sine, inputs.positions, frequencies, max_positions, name)


def _computed(
    graph: GraphBuilder, positions: str, frequencies: RotaryFrequencies, name: str
) -> tuple[str, str]:
    """Add cosines and sines of each token's angles, each [T, 1, d]."""
    weight = graph.weight(f"frequencies{name}", frequencies.values[None], is_exact=True)
    column = graph.weight("column", np.array([1], np.int64))
    rows = graph.op("Unsqueeze", graph.op("Cast", positions, to=TensorProto.FLOAT), column)
    angle = graph.op("Mul", rows, weight)
    both_halves = graph.op("Unsqueeze", graph.op("Concat", angle, angle, axis=-1), column)
    cosine, sine = graph.op("Cos", both_halves), graph.op("Sin", both_halves)
    if frequencies.scale != 1:
        scale = graph.weight(
            f"frequencies{name}.factor", np.array(frequencies.scale, np.float32), is_exact=True
        )
        cosine, sine = graph.op("Mul", cosine, scale), graph.op("Mul", sine, scale)
    return cosine, sine


def _looked_up(
    graph: GraphBuilder,
    positions: str,
    frequencies: RotaryFrequencies,
    max_positions: int,
    name: str,
) -> tuple[str, str]:
    """Add cosines and sines of each token's angles, each [T, 1, d], from tables.

    A runtime that computes in bfloat16 would round positions to 8 bits: beyond 256 tokens angles would be of other
    positions.
    """
    column = graph.weight("column", np.array([1], np.int64))
    angles = np.outer(np.arange(max_positions), frequencies.values.astype(np.float64))
    values = []
    for kind, function in (("cosines", np.cos), ("sines", np.sin)):
        table = (function(angles) * frequencies.scale).astype(np.float32)
        half = graph.op("Gather", graph.weight(f"{kind}{name}", table), positions, axis=0)
        values.append(graph.op("Unsqueeze", graph.op("Concat", half, half, axis=-1), column))
    return values[0], values[1]
