"""Prices of batches."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.backend import CostModel
from nestvec.engine.types import Layout

lengths_lists = st.lists(st.integers(1, 500), min_size=1, max_size=20)


@given(lengths=lengths_lists, extra=st.integers(1, 500))
def test_cost_grows_with_every_item(lengths: list[int], extra: int) -> None:
    """The scheduler's search needs a monotone price."""
    for layout in Layout:
        cost = CostModel(layout, 1 / 2304)
        assert cost(np.array([*lengths, extra])) > cost(np.array(lengths))


def test_padding_is_free_in_packed_linear_work_only() -> None:
    """A short item beside a long one costs its tokens packed, and a full row padded."""
    lengths = np.array([100, 10])
    assert CostModel(Layout.PACKED, 0.0)(lengths) == 110
    assert CostModel(Layout.PADDED, 0.0)(lengths) == 200
    assert CostModel(Layout.PACKED, 0.5)(lengths) == 110 + 0.5 * 2 * 100 * 100
    assert CostModel(Layout.PACKED, 0.5)(np.array([], np.int64)) == 0
