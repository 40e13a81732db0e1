"""Where a text turns to another matter: valleys in the similarity of the sentences before and behind. Pure.

Source: the depth of a valley, and the mean plus half a standard deviation of depths as its threshold, are TextTiling's
(Hearst, Computational Linguistics 23(1), 1997), over vectors of sentences instead of counts of words.
"""

import itertools
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.splitting.spans import Check, go_on

# Sentences on either side of a gap whose vectors are averaged: one alone says too little of what it is about.
WINDOW_SENTENCES: Final = 4
THRESHOLD_DEVIATIONS: Final = 0.5
# A chunk has at least so large a part of the tokens that it may have.
MIN_SHARE: Final = 0.25
Values = NDArray[np.float64]


def similarities(vectors: NDArray[np.float32], window: int = WINDOW_SENTENCES) -> Values:
    """Return the cosine of what stands before each gap between sentences and what stands behind it, (n - 1,).

    Args:
        vectors: Vectors of the sentences, (n, D), of unit length.
        window: How many sentences on either side are averaged.
    """
    count = len(vectors)
    sums = np.concatenate(
        [np.zeros((1, vectors.shape[1])), np.cumsum(vectors, axis=0, dtype=np.float64)]
    )
    gaps = np.arange(1, count)
    before = sums[gaps] - sums[np.maximum(gaps - window, 0)]
    behind = sums[np.minimum(gaps + window, count)] - sums[gaps]
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(behind, axis=1)
    dots: Values = np.einsum("nd,nd->n", before, behind)
    cosines: Values = dots / np.maximum(norms, 1e-12)
    return cosines


def depths(values: Values) -> Values:
    """Return how deep each value lies below the peaks that are reached by climbing from it to either side, (n,)."""
    return _climbed(values) + _climbed(values[::-1])[::-1] - 2 * values


def boundaries(
    vectors: NDArray[np.float32],
    tokens: Sequence[int],
    max_tokens: int = 0,
    check: Check = go_on,
    *,
    window: int = WINDOW_SENTENCES,
) -> list[int]:
    """Return the sentences that a new chunk begins with, rising, the first apart.

    Args:
        vectors: Vectors of the sentences, (n, D), of unit length.
        tokens: Number of tokens of each.
        max_tokens: Most tokens of a chunk, and four times the least; longer ones are cut where they are deepest, or
            between any two sentences. 0 for no bound.
        check: Called now and then; what it raises ends the work.
        window: How many sentences on either side of a gap are averaged.
    """
    count = len(tokens)
    if count < 2:  # noqa: PLR2004 - there is no gap
        return []
    values = similarities(vectors, window)
    deep = depths(values)
    lengths = np.concatenate([[0], np.cumsum(tokens)])
    least = max_tokens * MIN_SHARE
    threshold = deep.mean() + THRESHOLD_DEVIATIONS * deep.std()
    wanted = [gap + 1 for gap in np.flatnonzero(_is_valley(values) & (deep > threshold)).tolist()]
    wanted.sort(key=lambda sentence: (-deep[sentence - 1], sentence))
    edges = [0, count]
    for number, sentence in enumerate(wanted):
        if number % 256 == 0:
            check()
        _add(edges, sentence, lengths, least)
    if max_tokens:
        edges = _shortened(edges, deep, lengths, max_tokens, check)
    return edges[1:-1]


def _climbed(values: Values) -> Values:
    """The peak that is reached from each value by going left for as long as it rises."""
    peaks = values.copy()
    for index in range(1, len(values)):
        if values[index - 1] >= values[index]:
            peaks[index] = peaks[index - 1]
    return peaks


def _is_valley(values: Values) -> NDArray[np.bool_]:
    """Whether neither neighbour lies lower; of equal neighbours the first is the valley."""
    padded = np.concatenate([[np.inf], values, [np.inf]])
    is_valley: NDArray[np.bool_] = (padded[:-2] > values) & (padded[2:] >= values)
    return is_valley


def _add(edges: list[int], sentence: int, lengths: NDArray[np.int64], least: float) -> None:
    """Add an edge where both sides stay long enough."""
    place = int(np.searchsorted(edges, sentence))
    before, behind = edges[place - 1], edges[place]
    shorter = min(lengths[sentence] - lengths[before], lengths[behind] - lengths[sentence])
    if shorter >= least:
        edges.insert(place, sentence)


def _shortened(
    edges: list[int],
    deep: Values,
    lengths: NDArray[np.int64],
    max_tokens: int,
    check: Check,
) -> list[int]:
    """The edges, and as many more as make each part short enough, but for single sentences that are longer."""
    done = [0]
    waiting = list(itertools.pairwise(edges))[::-1]
    least = max_tokens * MIN_SHARE
    while waiting:
        check()
        first, last = waiting.pop()
        if last - first == 1 or lengths[last] - lengths[first] <= max_tokens:
            done.append(last)
            continue
        # As long as may be, so that the parts are few; of the gaps in reach the deepest.
        reach = int(np.searchsorted(lengths, lengths[first] + max_tokens, side="right")) - 1
        reach = min(max(reach, first + 1), last - 1)
        low = int(np.searchsorted(lengths, lengths[first] + least))
        low = min(max(low, first + 1), reach)
        cut = low + int(np.argmax(deep[low - 1 : reach]))
        waiting += [(cut, last), (first, cut)]
    return done
