"""Which tokens a token attends to, by their distance."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.inputs import MASKED_SCORE, PackedInputs


@dataclass(frozen=True, slots=True)
class AttentionMask:
    """Which tokens a layer's tokens attend to.

    Attributes:
        is_causal: Each token attends to itself and those before it only.
        window: Each token attends to tokens at most `window` - 1 away; 0 for no limit.
        bias: What is added to scores for it, [1, 1, S, S]; None where all attend to all.
    """

    is_causal: bool = False
    window: int = 0
    bias: str | None = None


FULL_ATTENTION: Final = AttentionMask()


def attention_mask(
    graph: GraphBuilder, inputs: PackedInputs, *, is_causal: bool, window: int
) -> AttentionMask:
    """Make a mask and add its bias to a graph; layers may share it."""
    bias = _mask_bias(graph, inputs, is_causal=is_causal, window=window)
    return AttentionMask(is_causal, window, bias)


def _mask_bias(
    graph: GraphBuilder, inputs: PackedInputs, *, is_causal: bool, window: int
) -> str | None:
    """Add what a mask adds to scores.

    Returns:
        [1, 1, S, S], float32, `MASKED_SCORE` for keys that a query does not attend to; None where all attend to all.
    """
    if not is_causal and not window:
        return None
    zero = graph.weight("zero", np.array(0, np.int64))
    distances = key_distances(graph, inputs)
    conditions = [graph.op("Greater", distances, zero)] if is_causal else []
    if window:
        max_distance = graph.weight(f"window_{window}", np.array(window - 1, np.int64))
        conditions.append(graph.op("Greater", graph.op("Abs", distances), max_distance))
    bias = graph.op(
        "Where",
        conditions[0] if len(conditions) == 1 else graph.op("Or", *conditions),
        graph.weight("masked", np.array(MASKED_SCORE, np.float32)),
        graph.weight("open", np.array(0, np.float32)),
    )
    return graph.op("Unsqueeze", bias, graph.weight("leading", np.array([0, 1], np.int64)))


def key_distances(graph: GraphBuilder, inputs: PackedInputs) -> str:
    """Add how far each key is ahead of each query: [S, S], int64, negative for keys behind it."""
    zero = graph.weight("zero", np.array(0, np.int64))
    one = graph.weight("one", np.array(1, np.int64))
    column = graph.weight("column", np.array([1], np.int64))
    if inputs.device is not None:
        positions = inputs.device.row_positions
    else:
        max_length = graph.op("Squeeze", graph.op("Shape", inputs.gather, start=1, end=2))
        positions = graph.op("Range", zero, max_length, one)
    return graph.op("Sub", positions, graph.op("Unsqueeze", positions, column))
