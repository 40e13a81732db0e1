"""Which tokens a token looks at, by their distance."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.graph.inputs import MASKED, PackedInputs


@dataclass(frozen=True, slots=True)
class Sight:
    """Which tokens a layer's tokens look at.

    Attributes:
        is_causal: Those before only, and itself.
        window: How many tokens away at most, itself counted; 0 for no limit.
        mask: What is added to scores for it, (1, 1, S, S); None where all look at all.
    """

    is_causal: bool = False
    window: int = 0
    mask: str | None = None


EVERYTHING: Final = Sight()


def sight(graph: GraphBuilder, inputs: PackedInputs, *, is_causal: bool, window: int) -> Sight:
    """A sight with its mask, which layers may share."""
    mask = distance_mask(graph, inputs, is_causal=is_causal, window=window)
    return Sight(is_causal, window, mask)


def distance_mask(
    graph: GraphBuilder, inputs: PackedInputs, *, is_causal: bool, window: int
) -> str | None:
    """What is added to scores.

    Args:
        graph: What it is added to.
        inputs: Say how long the longest input is.
        is_causal: Whether a token looks at those before it only.
        window: How many tokens away it looks at most, itself counted; 0 for no limit.

    Returns:
        (1, 1, S, S), float32, `MASKED` where a token does not look; None where all look at all.
    """
    if not is_causal and not window:
        return None
    zero = graph.weight("zero", np.array(0, np.int64))
    ahead = distances(graph, inputs)
    hidden = [graph.op("Greater", ahead, zero)] if is_causal else []
    if window:
        last = graph.weight(f"window_{window}", np.array(window - 1, np.int64))
        hidden.append(graph.op("Greater", graph.op("Abs", ahead), last))
    masked = graph.op(
        "Where",
        hidden[0] if len(hidden) == 1 else graph.op("Or", *hidden),
        graph.weight("masked", np.array(MASKED, np.float32)),
        graph.weight("open", np.array(0, np.float32)),
    )
    return graph.op("Unsqueeze", masked, graph.weight("leading", np.array([0, 1], np.int64)))


def distances(graph: GraphBuilder, inputs: PackedInputs) -> str:
    """Place of the key less that of the query, (S, S), int64."""
    zero = graph.weight("zero", np.array(0, np.int64))
    one = graph.weight("one", np.array(1, np.int64))
    column = graph.weight("column", np.array([1], np.int64))
    if inputs.device is not None:
        places = inputs.device.places
    else:
        longest = graph.op("Squeeze", graph.op("Shape", inputs.gather, start=1, end=2))
        places = graph.op("Range", zero, longest, one)
    return graph.op("Sub", places, graph.op("Unsqueeze", places, column))
