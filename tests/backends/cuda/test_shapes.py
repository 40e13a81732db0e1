"""Sizes that batches are filled up to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.backends.cuda.shapes import Shape, bucket_for, buckets, exact_shape, filled_up

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=40)


@given(LENGTHS, st.integers(16, 512))
def test_a_batch_fits_into_what_is_found_for_it(lengths: list[int], longest: int) -> None:
    """Every token has a place, padding is never longer than an input may be, and nothing is lost."""
    asked = np.minimum(np.array(lengths), longest)
    shapes = buckets(4096, longest)
    found = bucket_for(asked, shapes)
    if found is None:
        assert asked.sum() > 2048 or len(asked) > asked.sum() / 9
        return
    filled = filled_up(asked, found)
    assert filled.sum() == found.tokens
    assert len(filled) == found.inputs
    assert filled.max() <= found.longest <= longest
    assert (filled[: len(asked)] == asked).all()


def test_sizes_double_and_rows_are_multiples_of_sixteen() -> None:
    """As kernels with a bias on scores ask."""
    shapes = buckets(256, 100)
    assert [shape.tokens for shape in shapes] == [16, 32, 64, 128, 256]
    assert [shape.longest for shape in shapes] == [16, 32, 64, 100, 100]
    assert all(shape.row % 16 == 0 and shape.row >= shape.longest for shape in shapes)
    assert buckets(0, 100) == []


def test_a_batch_as_it_is() -> None:
    """No padding at all."""
    shape = exact_shape(np.array([3, 20]))
    assert shape == Shape(23, 2, 20)
    assert shape.row == 32
    assert filled_up(np.array([3, 20]), shape).tolist() == [3, 20]


def test_what_does_not_fit_is_refused() -> None:
    """Too many tokens, or no room for padding."""
    with pytest.raises(ValueError, match="does not fit"):
        filled_up(np.array([20]), Shape(16, 2, 16))
    with pytest.raises(ValueError, match="does not fit"):
        filled_up(np.array([1]), Shape(64, 2, 16))
