"""Rotary positions of patches: one half of a head turns with the patch's row, the other with its column.

Source: EVA-02 (arXiv:2303.11331), whose code pairs neighbouring channels. Here the two halves of a head are the pairs,
as everywhere: queries and keys are projected into that order, which leaves their products what they were.
"""

from dataclasses import replace
from typing import Final

import numpy as np

from nestvec.export.graph.types import Float32Array
from nestvec.export.layers.arithmetic import Linear
from nestvec.export.layers.build_context import BuildContext
from nestvec.export.layers.rotary_embedding import RotaryEmbedding
from nestvec.export.layers.rotary_frequencies import RotaryFrequencies

BASE: Final = 10_000.0  # in the code of all models that have such positions; no field says another


def grid_rotation(
    context: BuildContext, head_width: int, rows: Float32Array, columns: Float32Array
) -> RotaryEmbedding:
    """Add what turns the heads of pictures' tokens: a class token, which is not turned, then the patches row by row.

    Args:
        context: The graph in the making.
        head_width: d, a multiple of 4.
        rows: Place of each row of patches, [rows].
        columns: Place of each column of patches, [columns].
    """
    graph, inputs = context.graph, context.inputs
    count = head_width // 4
    steps = BASE ** (-np.arange(count) / count)
    by_row = np.repeat(np.outer(rows, steps), len(columns), axis=0)
    by_column = np.tile(np.outer(columns, steps), (len(rows), 1))
    angles = np.concatenate([by_row, by_column], axis=1)
    halves = np.concatenate([np.zeros((1, 2 * count)), angles])
    table = np.concatenate([halves, halves], axis=1)[:, None, :]
    cosine, sine = (
        graph.op(
            "Gather",
            graph.weight(f"{name}s", function(table).astype(np.float32)),
            inputs.positions,
            axis=0,
        )
        for name, function in (("cosine", np.cos), ("sine", np.sin))
    )
    frequencies = RotaryFrequencies(steps.astype(np.float32))
    return RotaryEmbedding(cosine, sine, inputs.positions, frequencies, len(table))


def grid_places(count: int, trained: int) -> Float32Array:
    """Return the places of rows or columns of patches, [count], scaled to as many as there were in training."""
    places: Float32Array = (np.arange(count) / count * trained).astype(np.float32)
    return places


def with_halves_paired(layer: Linear, heads: int) -> Linear:
    """Return a projection of queries or keys, [H, heads * d], in whose heads the halves are pairs, not neighbours."""
    width = len(layer.bias) // heads
    within = np.concatenate([np.arange(0, width, 2), np.arange(1, width, 2)])
    order = (np.arange(heads)[:, None] * width + within).reshape(-1)
    return replace(layer, weight=layer.weight[:, order], bias=layer.bias[order])
