"""Poolings against naive loops."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.pooling import POOLINGS, pool

NAIVE: dict[str, Callable[[FloatArray], FloatArray]] = {
    "mean": lambda rows: rows.mean(axis=0),
    "cls": lambda rows: rows[0],
    "max": lambda rows: rows.max(axis=0),
    "mean_sqrt_len": lambda rows: rows.sum(axis=0) / np.sqrt(len(rows)),
    "weighted_mean": lambda rows: np.average(rows, axis=0, weights=np.arange(1, len(rows) + 1)),
    "last_token": lambda rows: rows[-1],
}


def test_every_pooling_has_a_naive_twin() -> None:
    """A new pooling cannot be added without a check."""
    assert set(NAIVE) == set(POOLINGS)


@pytest.mark.parametrize("mode", sorted(POOLINGS))
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_pool_equals_the_naive_loop(mode: str, lengths: list[int], seed: int) -> None:
    """A packed batch gives each input what it would get alone."""
    hidden = np.random.default_rng(seed).standard_normal((sum(lengths), 5)).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    pooled = pool(mode, hidden, offsets, np.zeros(len(lengths), np.int64))
    for row, (start, stop) in zip(pooled, pairwise(offsets), strict=True):
        np.testing.assert_allclose(row, NAIVE[mode](hidden[start:stop]), rtol=1e-5, atol=1e-6)


def test_several_modes_stand_side_by_side() -> None:
    """Vectors are concatenated in the order named, also where a mode is named twice."""
    hidden = np.arange(15, dtype=np.float32).reshape(5, 3)
    pooled = pool("max+cls+max", hidden, np.array([0, 3, 5]), np.array([0, 0]))
    for row, tokens in zip(pooled, (hidden[:3], hidden[3:]), strict=True):
        expected = [NAIVE[mode](tokens) for mode in ("max", "cls", "max")]
        np.testing.assert_array_equal(row, np.concatenate(expected))


@pytest.mark.parametrize("mode", ["mean", "max", "mean_sqrt_len"])
def test_skipped_tokens_do_not_count(mode: str) -> None:
    """A prompt's tokens leave no trace, and the caller's array is not changed."""
    hidden = np.arange(15, dtype=np.float32).reshape(5, 3)
    before = hidden.copy()
    pooled = pool(mode, hidden, np.array([0, 3, 5]), np.array([2, 0]))
    np.testing.assert_allclose(pooled[0], NAIVE[mode](hidden[2:3]), rtol=1e-6)
    np.testing.assert_allclose(pooled[1], NAIVE[mode](hidden[3:5]), rtol=1e-6)
    np.testing.assert_array_equal(hidden, before)


def test_weighted_mean_keeps_positions_when_tokens_are_skipped() -> None:
    """Weights follow the position in the whole input, as in sentence-transformers."""
    hidden = np.array([[9.0], [1.0], [4.0]], np.float32)
    pooled = pool("weighted_mean", hidden, np.array([0, 3]), np.array([1]))
    np.testing.assert_allclose(pooled, [[(2 * 1 + 3 * 4) / 5]])


@pytest.mark.parametrize(
    ("offsets", "skip"),
    [([1, 3], [0]), ([0, 2], [0]), ([0, 0, 3], [0, 0]), ([0, 3], [3]), ([0, 3], [-1])],
    ids=["not from zero", "not to T", "empty input", "all skipped", "negative skip"],
)
def test_pool_refuses_bad_offsets(offsets: list[int], skip: list[int]) -> None:
    """A wrong batch is an error, not a wrong vector."""
    with pytest.raises(ValueError, match="must"):
        pool("mean", np.zeros((3, 2), np.float32), np.array(offsets), np.array(skip))
