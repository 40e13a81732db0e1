"""Sizes that batches are padded to."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.backends.cuda.layout.shapes import (
    Shape,
    bucket_for,
    buckets,
    exact_shape,
    padded_lengths,
)

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=40)


@given(LENGTHS, st.integers(16, 512))
def test_a_batch_fits_into_the_bucket_found_for_it(lengths: list[int], longest: int) -> None:
    """Every token has a place, padding is never longer than an input may be, and no length is lost."""
    batch = np.minimum(np.array(lengths), longest)
    shapes = buckets(4096, longest)
    bucket = bucket_for(batch, shapes)
    if bucket is None:
        assert batch.sum() > 2048 or len(batch) > batch.sum() / 9
        return
    padded = padded_lengths(batch, bucket)
    assert padded.sum() == bucket.tokens
    assert len(padded) == bucket.inputs
    assert padded.max() <= bucket.longest <= longest
    assert (padded[: len(batch)] == batch).all()


def test_sizes_double_and_then_grow_by_a_quarter() -> None:
    """Filling a large batch up to twice its size would cost as much again. Rows are multiples of 16, as kernels ask."""
    shapes = buckets(256, 100)
    assert [shape.tokens for shape in shapes] == [16, 32, 64, 128, 256]
    assert [shape.longest for shape in shapes] == [16, 32, 64, 100, 100]
    assert all(shape.row_length % 16 == 0 and shape.row_length >= shape.longest for shape in shapes)
    assert buckets(0, 100) == []
    large = [shape.tokens for shape in buckets(4096, 100)][4:]
    assert large[0] == 256
    assert large[-1] > 3800
    assert all(a < b <= 1.32 * a for a, b in pairwise(large))


def test_the_exact_shape_of_a_batch_has_no_padding() -> None:
    """Only its rows are rounded up for the kernels that ask for it."""
    shape = exact_shape(np.array([3, 20]))
    assert shape == Shape(23, 2, 20)
    assert shape.row_length == 32
    assert padded_lengths(np.array([3, 20]), shape).tolist() == [3, 20]


def test_a_batch_that_does_not_fit_is_refused() -> None:
    """It has too many tokens, or there is no room for the inputs of padding."""
    with pytest.raises(ValueError, match="does not fit"):
        padded_lengths(np.array([20]), Shape(16, 2, 16))
    with pytest.raises(ValueError, match="does not fit"):
        padded_lengths(np.array([1]), Shape(64, 2, 16))
