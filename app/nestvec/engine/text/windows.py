"""Overlapping windows over inputs that are longer than a model takes. Pure.

Source: late chunking of long documents (arXiv:2409.04701, section 4.2) for windows that overlap; which window a token's
state is taken from is our own rule: the one in which it stands furthest from an edge, so that it saw the most around
it.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import FloatArray

OVERLAP: Final = 8  # an eighth of a window
Bounds = tuple[tuple[int, int], ...]


def window_bounds(tokens: int, room: int) -> Bounds:
    """Where windows start and stop, in tokens; each is full, the last one ends with the input.

    Args:
        tokens: Of the input, special tokens apart.
        room: Of a window.
    """
    if tokens <= room:
        return ((0, tokens),)
    step = max(1, room - room // OVERLAP)
    starts = [*range(0, tokens - room, step), tokens - room]
    return tuple((start, start + room) for start in starts)


def owners(bounds: Bounds) -> NDArray[np.int64]:
    """The window each token is taken from, (n,): that in which it is furthest from a cut.

    Args:
        bounds: Of windows that follow each other, the first from 0, the last to n.
    """
    tokens = bounds[-1][1]
    places = np.arange(tokens)
    depth = np.full((len(bounds), tokens), -1, np.int64)
    for number, (start, stop) in enumerate(bounds):
        before = places[start:stop] - start if start else np.full(stop - start, tokens)
        behind = stop - 1 - places[start:stop] if stop < tokens else np.full(stop - start, tokens)
        depth[number, start:stop] = np.minimum(before, behind)
    owner: NDArray[np.int64] = depth.argmax(axis=0)
    return owner


def shares(bounds: Bounds) -> NDArray[np.float64]:
    """What each window's vector counts: its share of the tokens, each token counted once; (windows,), sums to 1."""
    counts = np.bincount(owners(bounds), minlength=len(bounds))
    weights: NDArray[np.float64] = counts / counts.sum()
    return weights


def joined(states: Sequence[FloatArray], bounds: Bounds, lead: int, tail: int) -> FloatArray:
    """Token states of a whole document, from its windows'.

    Args:
        states: Of each window, special tokens included, (lead + window + tail, H).
        bounds: Of the windows.
        lead: Leading special tokens, taken from the first window.
        tail: Closing ones, from the last.

    Returns:
        (lead + n + tail, H), float32.
    """
    owner = owners(bounds)
    parts = [states[0][:lead]]
    for number, (start, stop) in enumerate(bounds):
        own = np.flatnonzero(owner[start:stop] == number)
        parts.append(states[number][lead + own])
    parts.append(states[-1][len(states[-1]) - tail :])
    whole: FloatArray = np.concatenate(parts)
    return whole
