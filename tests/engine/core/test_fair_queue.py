"""The fair queue's memory: fairness lasts while somebody waits, and no longer."""

import math
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.core.fair_queue import MOST_CREDIT_TOKENS, Entry, FairQueue, Place
from nestvec.engine.types import Item


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
    """It neither waits behind what the other has queued nor gets credit for not having been there."""
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
    found = list(queue.near_head(count, math.inf))
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
    remaining = [entry.item for _, entry in queue.near_head(len(queue), math.inf)]
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


def test_what_goes_before_its_turn_moves_nobody_back() -> None:
    """A key that comes then stands where the next one stands, not behind all that was passed over."""
    queue = FairQueue()
    places = [add(queue, "a", 10) for _ in range(20)]
    queue.take(places[0])
    queue.take(places[15])  # like the head in length
    late = add(queue, "b", 5)
    assert late[0] == 5.0
    queue.remove(late)
    queue.take(places[1])
    assert add(queue, "c", 5)[0] == 15.0


def test_a_key_catches_up_on_what_it_missed_within_bounds() -> None:
    """Of a moment's absence, not of an hour's."""
    queue = FairQueue()
    places = [add(queue, "a", 1000) for _ in range(20)]
    queue.take(add(queue, "b", 10))
    for place in places[:4]:
        queue.take(place)  # virtual time is 3000
    late = add(queue, "b", 10)
    assert late[0] == 20.0
    queue.take(late)
    for place in places[4:18]:
        queue.take(place)
    assert add(queue, "b", 10)[0] == 17_000 - MOST_CREDIT_TOKENS + 10


def test_where_several_keys_wait_nobody_looks_far() -> None:
    """So many tokens of each; a key alone is looked at in full."""
    queue = FairQueue()
    for _ in range(50):
        add(queue, "a", 10)
    assert len(list(queue.near_head(40, 100))) == 40
    for _ in range(50):
        add(queue, "b", 10)
    found = [entry.item.key_id for _, entry in queue.near_head(90, 100)]
    assert found.count("a") == found.count("b") == 11
