"""Windows over long inputs: every token is seen, each counts once."""

import itertools
import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.text.windows import join_states, owning_windows, window_bounds, window_weights

sizes = st.tuples(st.integers(1, 400), st.integers(1, 60))


@given(sizes)
def test_windows_cover_the_input_and_overlap(size: tuple[int, int]) -> None:
    """Windows are full, start with the input, end with it, and leave no gap."""
    tokens, window_tokens = size
    bounds = window_bounds(tokens, window_tokens)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == tokens
    assert all(stop - start == min(window_tokens, tokens) for start, stop in bounds)
    for (start, stop), (later, end) in itertools.pairwise(bounds):
        assert start < later <= stop < end
        assert stop - later >= window_tokens // 8


@given(sizes)
def test_each_token_has_one_window_and_is_deep_in_it(size: tuple[int, int]) -> None:
    """A token is taken from the window in which it is furthest from a cut, and each window counts."""
    tokens, window_tokens = size
    bounds = window_bounds(tokens, window_tokens)
    owner = owning_windows(bounds)
    assert len(owner) == tokens
    for position in range(tokens):
        depths = []
        for start, stop in bounds:
            before = position - start if start else tokens
            behind = stop - 1 - position if stop < tokens else tokens
            depths.append(min(before, behind) if start <= position < stop else -1)
        assert depths[owner[position]] == max(depths)
    np.testing.assert_allclose(window_weights(bounds).sum(), 1)
    assert (window_weights(bounds) > 0).all()


@given(sizes, st.integers(0, 2), st.integers(0, 2))
def test_states_are_joined_from_their_windows(
    size: tuple[int, int], prefix: int, suffix: int
) -> None:
    """Each joined state is its owner's; special tokens are the first window's and the last one's."""
    tokens, window_tokens = size
    bounds = window_bounds(tokens, window_tokens)
    # A state says its window and its token.
    states = [
        np.array(
            [(window, position) for position in range(-prefix, stop - start + suffix)], np.float32
        ).reshape(-1, 2)
        for window, (start, stop) in enumerate(bounds)
    ]
    whole = join_states(states, bounds, prefix, suffix)
    assert len(whole) == prefix + tokens + suffix
    owner = owning_windows(bounds)
    for position in range(tokens):
        window, within = whole[prefix + position].astype(int)
        assert window == owner[position]
        assert bounds[window][0] + within == position
    assert (whole[:prefix, 0] == 0).all()
    assert (whole[prefix + tokens :, 0] == len(bounds) - 1).all()


def test_many_windows_take_memory_by_their_tokens() -> None:
    """Windows of a few tokens over a long text: memory grows with the tokens, not with windows times tokens."""
    bounds = window_bounds(10_000, 2)
    tracemalloc.start()
    owner = owning_windows(bounds)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(owner) == 10_000
    assert peak_bytes < 100 * 10_000
