"""Draws some of many things, and says so."""

from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np

T = TypeVar("T")

# Of the draw of what a report is made of; other draws of the same run have streams of their own.
SAMPLE_STREAM: Final = 101


def drawn(items: Sequence[T], most: int, seed: int) -> Sequence[T]:
    """Return at most so many of the items, drawn evenly, in their order; the items themselves where there are no more.

    Two sequences of one length lose the same places by the same seed.
    """
    if len(items) <= most:
        return items
    places = np.random.default_rng((seed, SAMPLE_STREAM)).permutation(len(items))[:most]
    return [items[place] for place in np.sort(places).tolist()]


def drawn_note(given: int, most: int, what: str) -> list[str]:
    """Return what a reader has to know where not all of the things given were used; nothing where all were.

    Args:
        given: How many were given.
        most: How many are used at most.
        what: What they are, in the plural.
    """
    return [f"A sample of {most:,} of the {given:,} {what}, drawn by the seed."] * (given > most)
