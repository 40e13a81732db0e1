"""Items of other exits never share a batch, and none waits for ever."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.backend import CostModel
from nestvec.engine.core.scheduler import Scheduler
from nestvec.engine.types import Item, Layout

items = st.lists(
    st.tuples(st.integers(1, 20), st.sampled_from([(), (1,), (2,), (1, 2)])),
    min_size=1,
    max_size=40,
)


@given(items, st.integers(1, 64))
def test_batches_are_of_one_exit(
    given_items: list[tuple[int, tuple[int, ...]]], budget: int
) -> None:
    """Every item leaves once; the head of the queue leaves with the next batch."""
    scheduler = Scheduler(CostModel(Layout.PACKED, 0.0), budget, 1024)
    for number, (tokens, exits) in enumerate(given_items):
        depth = (exits[-1] if exits else 3) / 3
        one = Item(np.zeros(tokens, np.int32), index=number, exits=exits, depth=depth)
        scheduler.add(number, [one], 0.0)
    left = []
    while scheduler.waiting_items:
        entries = scheduler.next_batch(0.0).entries
        assert len({entry.item.exits for entry in entries}) == 1
        left += [entry.item.index for entry in entries]
    assert sorted(left) == list(range(len(given_items)))
