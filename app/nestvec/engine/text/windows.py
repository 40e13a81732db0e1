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

OVERLAP: Final = 8  # neighbouring windows share an eighth of a window
Bounds = tuple[tuple[int, int], ...]


def window_bounds(tokens: int, window_tokens: int) -> Bounds:
    """Where windows start and stop, in tokens; each window is full, and the last one ends with the input.

    Args:
        tokens: Number of tokens of the input, special tokens apart.
        window_tokens: Number of them that fit in a window.
    """
    if tokens <= window_tokens:
        return ((0, tokens),)
    step = max(1, window_tokens - window_tokens // OVERLAP)
    starts = [*range(0, tokens - window_tokens, step), tokens - window_tokens]
    return tuple((start, start + window_tokens) for start in starts)


def owning_windows(bounds: Bounds) -> NDArray[np.int64]:
    """The window that each token's state is taken from, (n,): the one in which it is furthest from a cut.

    Args:
        bounds: Bounds of windows that follow each other, the first from 0, the last to n.
    """
    tokens = bounds[-1][1]
    owner = np.zeros(tokens, np.int64)
    best = np.full(tokens, -1, np.int64)
    for window, (start, stop) in enumerate(bounds):
        positions = np.arange(stop - start)
        whole = np.full(stop - start, tokens)
        to_start = positions if start else whole
        to_stop = positions[::-1] if stop < tokens else whole
        distance = np.minimum(to_start, to_stop)
        is_further = distance > best[start:stop]
        owner[start:stop][is_further] = window
        np.maximum(best[start:stop], distance, out=best[start:stop])
    return owner


def window_weights(bounds: Bounds) -> NDArray[np.float64]:
    """The weight of each window's vector, (windows,): its share of the tokens, each counted once; they sum to 1."""
    counts = np.bincount(owning_windows(bounds), minlength=len(bounds))
    weights: NDArray[np.float64] = counts / counts.sum()
    return weights


def join_states(
    states: Sequence[FloatArray], bounds: Bounds, prefix_tokens: int, suffix_tokens: int
) -> FloatArray:
    """Join the token states of a document's windows to those of the whole document.

    Args:
        states: The states of each window, special tokens included, (prefix_tokens + window + suffix_tokens, H).
        bounds: The windows' bounds.
        prefix_tokens: Number of leading special tokens, which are taken from the first window.
        suffix_tokens: Number of closing ones, which are taken from the last window.

    Returns:
        The states, (prefix_tokens + n + suffix_tokens, H), float32.
    """
    owner = owning_windows(bounds)
    parts = [states[0][:prefix_tokens]]
    for window, (start, stop) in enumerate(bounds):
        owned = np.flatnonzero(owner[start:stop] == window)
        parts.append(states[window][prefix_tokens + owned])
    parts.append(states[-1][len(states[-1]) - suffix_tokens :])
    whole: FloatArray = np.concatenate(parts)
    return whole
