"""The fair queue's memory: fairness lasts while somebody waits, and no longer."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

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


ONE = np.ones(1, np.int32)
ARRIVALS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 12), st.none() | st.integers(1, 9)),
    min_size=1,
    max_size=40,
)


def filled(arrivals: list[tuple[str, int, int | None]]) -> FairQueue:
    """A queue of these keys, lengths and deadlines; some already taken."""
    queue = FairQueue()
    for number, (key, tokens, deadline_s) in enumerate(arrivals):
        one = Item(np.ones(tokens, np.int32), key_id=key, deadline_s=deadline_s)
        queue.add(Entry(one, number, 0, 0.0))
    for _ in range(len(arrivals) // 3):
        queue.take(queue.head()[0])
    return queue


@given(arrivals=ARRIVALS, count=st.integers(1, 50))
def test_neighbours_of_the_head_come_by_likeness_in_length(
    arrivals: list[tuple[str, int, int | None]], count: int
) -> None:
    """Exactly the next `count` in order of tags, as sorting all of them would give."""
    queue = filled(arrivals)
    in_order = []
    copy = filled(arrivals)
    while copy:
        place, entry = copy.head()
        in_order.append((place, entry))
        copy.remove(place)
    window = in_order[:count]
    anchor = window[0][1].item.tokens
    expected = sorted(abs(entry.item.tokens - anchor) for _, entry in window)
    found = list(queue.near_head(count))
    assert found[0][0] == window[0][0]
    assert [abs(entry.item.tokens - anchor) for _, entry in found] == expected
    assert sorted(place for place, _ in found) == [place for place, _ in window]
    for (one, first), (two, second) in pairwise(found):
        if first.item.tokens == second.item.tokens:
            assert one < two


@given(arrivals=ARRIVALS, times=st.lists(st.integers(0, 10), max_size=5))
def test_what_is_late_is_found_at_any_time(
    arrivals: list[tuple[str, int, int | None]], times: list[int]
) -> None:
    """Whatever was asked before, and wherever it stands in the queue."""
    queue = filled(arrivals)
    remaining = [entry.item for _, entry in queue.near_head(len(queue))]
    for now_s in sorted(times):
        late = [queue.remove(place).item for place in queue.expired(now_s)]
        expected = {id(i) for i in remaining if i.deadline_s is not None and i.deadline_s <= now_s}
        assert {id(i) for i in late} == expected
        remaining = [i for i in remaining if id(i) not in expected]


def test_a_new_deadline_is_seen_after_an_empty_time() -> None:
    """What the queue remembers of deadlines never hides a later, nearer one."""
    queue = FairQueue()
    place = queue.add(Entry(Item(ONE, deadline_s=5.0), 0, 0, 0.0))
    assert queue.expired(1.0) == []
    queue.remove(place)
    near = queue.add(Entry(Item(ONE, deadline_s=2.0), 1, 0, 1.0))
    queue.add(Entry(Item(ONE), 2, 0, 1.0))
    assert queue.expired(1.9) == []
    assert queue.expired(2.0) == [near]
