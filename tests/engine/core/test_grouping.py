"""Items with different exits never share a batch, and none waits for ever."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.backend import CostModel
from nestvec.engine.core.batching.scheduler import Scheduler
from nestvec.engine.types import Item, Layout

from tests.support.fakes import submission

items = st.lists(
    st.tuples(st.integers(1, 20), st.sampled_from([(), (1,), (2,), (1, 2)])),
    min_size=1,
    max_size=40,
)


@given(items, st.integers(1, 64))
def test_batches_are_of_one_exit(
    given_items: list[tuple[int, tuple[int, ...]]], budget: int
) -> None:
    """Every item leaves exactly once, in a batch of items with its own exits."""
    scheduler = Scheduler(CostModel(Layout.PACKED, 0.0), budget, 1024)
    for number, (tokens, exits) in enumerate(given_items):
        layer_share = (exits[-1] if exits else 3) / 3
        item = Item(np.zeros(tokens, np.int32), index=number)
        call = submission(item, exits=exits, layer_share=layer_share)
        scheduler.add(number, call, 0.0)
    left = []
    while scheduler.waiting_items:
        entries = scheduler.next_batch(0.0).entries
        assert len({entry.options.exits for entry in entries}) == 1
        left += [entry.item.index for entry in entries]
    assert sorted(left) == list(range(len(given_items)))
