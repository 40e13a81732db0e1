"""Groups of inputs: the weighted sum of unit vectors, whatever the scale of vectors and weights."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.vectors.groups import Groups
from nestvec.errors import InputError


@given(
    st.lists(
        st.lists(st.floats(0.01, 10) | st.floats(-0.5, 0), min_size=1, max_size=5),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_a_groups_vector_is_the_unit_of_the_weighted_sum(
    weights: list[list[float]], seed: int
) -> None:
    """Each is what numpy makes of it one group at a time, at any scale of the weights and of the vectors."""
    weights = [
        [1.0 + sum(map(abs, row)), *row] for row in weights
    ]  # those of a group outweigh its negative ones
    sizes = tuple(map(len, weights))
    flat = [weight for row in weights for weight in row]
    vectors = np.random.default_rng(seed).standard_normal((len(flat), 16)).astype(np.float32)
    expected = []
    for start, row in zip(np.cumsum((0, *sizes[:-1])), weights, strict=True):
        part = vectors[start : start + len(row)].astype(np.float64)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        total = (np.array(row)[:, None] * part).sum(axis=0)
        expected.append(total / np.linalg.norm(total))
    for scale in (1.0, 1e-300, 1e300):
        groups = Groups(sizes, tuple(weight * scale for weight in flat))
        groups.check(len(flat))
        np.testing.assert_allclose(groups.combine(vectors * 1e3), expected, atol=1e-6)


def test_one_text_is_a_group_of_its_own() -> None:
    """Groups of one leave unit vectors where they are, and zeros too."""
    vectors = np.eye(4, dtype=np.float32)
    vectors[3] = 0
    assert (Groups((1,) * 4).combine(vectors) == vectors).all()


@pytest.mark.parametrize(
    ("groups", "param", "index", "word"),
    [
        (Groups(()), "groups", None, "add up"),
        (Groups((2, 2)), "groups", None, "comes to 4"),
        (Groups((3, 0)), "groups", 1, "at least one"),
        (Groups((4, -1)), "groups", 1, "at least one"),
        (Groups((2, 1), (1.0, 1.0)), "weights", None, "holds 2"),
        (Groups((2, 1), (1.0, math.nan, 1.0)), "weights", 1, "finite"),
        (Groups((2, 1), (1.0, 1.0, -math.inf)), "weights", 2, "finite"),
        (Groups((2, 1), (0.0, 0.0, 1.0)), "weights", None, "group 0"),
        (Groups((1, 2), (1.0, 1.0, -1.0)), "weights", None, "group 1"),
        (Groups((1, 2), (1.0, 1.0, -2.0)), "weights", None, "outweigh"),
    ],
)
def test_groups_that_do_not_fit_are_refused(
    groups: Groups, param: str, index: int | None, word: str
) -> None:
    """The error names the field, and the place in it where there is one."""
    with pytest.raises(InputError, match=word) as caught:
        groups.check(3)
    assert (caught.value.param, caught.value.input_index) == (param, index)


def test_vectors_that_cancel_out_are_no_vector() -> None:
    """What rounding leaves of opposite vectors never leaves as a direction."""
    vectors = np.array([[1, 2], [-1, -2], [3, 1]], np.float32)
    for weights in ((1.0, 1.0, 1.0), ()):
        with pytest.raises(InputError, match="cancel each other out") as caught:
            Groups((2, 1), weights).combine(vectors)
        assert (caught.value.param, caught.value.input_index) == ("groups", 0)
    with pytest.raises(InputError) as caught:
        Groups((1, 2)).combine(vectors[::-1])
    assert caught.value.input_index == 1
