"""Token states to one vector per input: pure numpy, the reference for any graph that pools.

All functions take hidden states packed end to end, shape (T, H), float32, offsets of shape (B + 1,) and
`skip` of shape (B,): leading tokens (a prompt's) that are left out. They return (B, H), float32, not
normalized. A vector depends on its own tokens only, whatever else the batch holds.

Source: the pooling modes of sentence-transformers' `Pooling` module; mean pooling as in Sentence-BERT,
section 3 (arXiv:1908.10084); weighted mean as in SGPT (arXiv:2202.08904).
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import FloatArray

Offsets = NDArray[np.int64]
PoolFunction = Callable[[FloatArray, Offsets, Offsets], FloatArray]


def _without(hidden: FloatArray, offsets: Offsets, skip: Offsets, neutral: float) -> FloatArray:
    """States with the skipped ones at a value that does not count; a copy only where something is skipped."""
    if not skip.any():
        return hidden
    kept: FloatArray = hidden.copy()
    for start, count in zip(offsets[:-1], skip, strict=True):
        kept[start : start + count] = neutral
    return kept


def _sums(hidden: FloatArray, offsets: Offsets, skip: Offsets) -> FloatArray:
    """Sum each input's states after its skipped ones; (B, H)."""
    kept = _without(hidden, offsets, skip, 0.0)
    total: FloatArray = np.add.reduceat(kept, offsets[:-1], axis=0)
    return total


def _counts(offsets: Offsets, skip: Offsets) -> FloatArray:
    """Tokens that count for each input, at least 1; (B, 1)."""
    counts: FloatArray = np.maximum(np.diff(offsets) - skip, 1).astype(np.float32)[:, None]
    return counts


def mean(hidden: FloatArray, offsets: Offsets, skip: Offsets) -> FloatArray:
    """Average the token states."""
    return _sums(hidden, offsets, skip) / _counts(offsets, skip)


def mean_sqrt_len(hidden: FloatArray, offsets: Offsets, skip: Offsets) -> FloatArray:
    """Divide the sum of the token states by the square root of their number."""
    root: FloatArray = np.sqrt(_counts(offsets, skip))
    return _sums(hidden, offsets, skip) / root


def cls(hidden: FloatArray, offsets: Offsets, skip: Offsets) -> FloatArray:
    """Take the state of the first token; a prompt never removes it."""
    del skip
    first: FloatArray = hidden[offsets[:-1]]
    return first


def last_token(hidden: FloatArray, offsets: Offsets, skip: Offsets) -> FloatArray:
    """Take the state of the last token; packed batches have no padding to step over."""
    del skip
    last: FloatArray = hidden[offsets[1:] - 1]
    return last


def maximum(hidden: FloatArray, offsets: Offsets, skip: Offsets) -> FloatArray:
    """Take the largest value of each dimension."""
    kept = _without(hidden, offsets, skip, -np.inf)
    top: FloatArray = np.maximum.reduceat(kept, offsets[:-1], axis=0)
    return top


def weighted_mean(hidden: FloatArray, offsets: Offsets, skip: Offsets) -> FloatArray:
    """Average the token states with weights 1, 2, …, n by position."""
    lengths = np.diff(offsets)
    position = np.arange(len(hidden), dtype=np.int64) - np.repeat(offsets[:-1], lengths)
    weights = (position + 1).astype(np.float32)
    weights[position < np.repeat(skip, lengths)] = 0.0
    summed: FloatArray = np.add.reduceat(hidden * weights[:, None], offsets[:-1], axis=0)
    norm: FloatArray = np.add.reduceat(weights, offsets[:-1])[:, None]
    return summed / norm


JOINT: Final = "+"  # between the modes of a pooling whose vectors are concatenated
POOLINGS: Final[Mapping[str, PoolFunction]] = {
    "mean": mean,
    "cls": cls,
    "max": maximum,
    "mean_sqrt_len": mean_sqrt_len,
    "weighted_mean": weighted_mean,
    "last_token": last_token,
}


def pooling_modes(pooling: str) -> list[str]:
    """Return the modes of a pooling, keys of `POOLINGS`: several where `JOINT` stands between them."""
    return pooling.split(JOINT)


def mean_of_parts(
    hidden: FloatArray, goes_on: NDArray[np.bool_], offsets: Offsets, skip: Offsets
) -> tuple[FloatArray, Offsets, Offsets]:
    """Average the tokens of each word: an input's words then count alike, however many parts they have.

    Args:
        hidden: Token states, (T, H), float32.
        goes_on: Which tokens go on with the word of the token before them, (T,); an input's first one never does.
        offsets: Where each input starts, then T; (B + 1,).
        skip: Leading tokens to leave out of each input, (B,); a word of which some are is left out.

    Returns:
        States of words, (W, H); offsets and skip, counted in words. An input keeps one word at least.
    """
    if not goes_on.any():
        return hidden, offsets, skip
    is_start = ~goes_on
    is_start[offsets[:-1]] = True
    starts = np.flatnonzero(is_start)
    parts = np.diff(np.append(starts, len(hidden)))[:, None].astype(np.float32)
    sums: FloatArray = np.add.reduceat(hidden, starts, axis=0)
    words = sums / parts
    bounds = np.searchsorted(starts, offsets)
    skipped = np.searchsorted(starts, offsets[:-1] + skip) - bounds[:-1]
    return words, bounds, np.minimum(skipped, np.diff(bounds) - 1)


def pool(mode: str, hidden: FloatArray, offsets: Offsets, skip: Offsets) -> FloatArray:
    """Pool token states with the named mode, or with several, whose vectors are concatenated.

    Args:
        mode: A key of `POOLINGS`, or several with `JOINT` between them.
        hidden: Token states, (T, H), float32.
        offsets: Where each input starts, then T; (B + 1,), strictly increasing.
        skip: Leading tokens to leave out of each input, (B,); fewer than the input has.

    Returns:
        One vector for each input, (B, H) or (B, modes * H), float32.

    Raises:
        ValueError: Offsets do not run from 0 to T, an input is empty, or all of it would be skipped.
    """
    lengths = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != len(hidden) or (lengths < 1).any():
        raise ValueError("offsets must run from 0 to T with at least one token an input")
    if (skip < 0).any() or (skip >= lengths).any():
        raise ValueError("an input must keep at least one token")
    vectors = [POOLINGS[part](hidden, offsets, skip) for part in pooling_modes(mode)]
    return vectors[0] if len(vectors) == 1 else np.concatenate(vectors, axis=1)
