"""Windows over long inputs: every token is seen, each counts once."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.text.windows import joined, owners, shares, window_bounds

sizes = st.tuples(st.integers(1, 400), st.integers(1, 60))


@given(sizes)
def test_windows_cover_the_input_and_overlap(size: tuple[int, int]) -> None:
    """Full ones, the first from the start, the last to the end, no gap."""
    tokens, room = size
    bounds = window_bounds(tokens, room)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == tokens
    assert all(stop - start == min(room, tokens) for start, stop in bounds)
    for (start, stop), (later, end) in itertools.pairwise(bounds):
        assert start < later <= stop < end
        assert stop - later >= room // 8


@given(sizes)
def test_each_token_has_one_window_and_is_deep_in_it(size: tuple[int, int]) -> None:
    """No other window has it further from a cut."""
    tokens, room = size
    bounds = window_bounds(tokens, room)
    owner = owners(bounds)
    assert len(owner) == tokens
    for place in range(tokens):
        depths = []
        for start, stop in bounds:
            before = place - start if start else tokens
            behind = stop - 1 - place if stop < tokens else tokens
            depths.append(min(before, behind) if start <= place < stop else -1)
        assert depths[owner[place]] == max(depths)
    np.testing.assert_allclose(shares(bounds).sum(), 1)
    assert (shares(bounds) > 0).all()


@given(sizes, st.integers(0, 2), st.integers(0, 2))
def test_states_are_joined_from_their_windows(size: tuple[int, int], lead: int, tail: int) -> None:
    """Each row is the owner's; what stands around is the first's and the last's."""
    tokens, room = size
    bounds = window_bounds(tokens, room)
    # A state says its window and its token.
    states = [
        np.array(
            [(number, place) for place in range(-lead, stop - start + tail)], np.float32
        ).reshape(-1, 2)
        for number, (start, stop) in enumerate(bounds)
    ]
    whole = joined(states, bounds, lead, tail)
    assert len(whole) == lead + tokens + tail
    owner = owners(bounds)
    for place in range(tokens):
        number, within = whole[lead + place].astype(int)
        assert number == owner[place]
        assert bounds[number][0] + within == place
    assert (whole[:lead, 0] == 0).all()
    assert (whole[lead + tokens :, 0] == len(bounds) - 1).all()
