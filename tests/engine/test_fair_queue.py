"""The fair queue's memory: fairness lasts while somebody waits, and no longer."""

import numpy as np

from app.engine.fair_queue import Entry, FairQueue, Place
from app.engine.types import Item


def add(queue: FairQueue, key_id: str, tokens: int) -> Place:
    """Queue an item of a key."""
    return queue.add(Entry(Item(np.ones(tokens, np.int32), key_id=key_id), 0, 0, 0.0))


def test_an_empty_queue_forgets() -> None:
    """However the last entry left, the next one starts from zero."""
    queue = FairQueue()
    for leave in (queue.take, queue.remove):
        for place in [add(queue, "a", 7), add(queue, "a", 4)]:
            leave(place)
        assert (len(queue), queue.tokens) == (0, 0)
        fresh = add(queue, "b", 3)
        assert fresh[0] == 3.0
        queue.remove(fresh)


def test_a_new_key_starts_where_the_one_being_served_started() -> None:
    """It neither waits behind what the other has queued nor gets credit for having been away."""
    queue = FairQueue()
    first, second, third = (add(queue, "a", 10) for _ in range(3))
    queue.take(first)
    queue.take(second)  # started at 10
    late = add(queue, "b", 5)
    assert late[0] == 15.0
    assert late < third
