"""The fair queue's memory: fairness lasts while somebody waits, and no longer."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.core.batching.fair_queue import MAX_CREDIT_TOKENS, Entry, FairQueue, Ticket
from nestvec.engine.types import Item, ItemOptions


def add(queue: FairQueue, key_id: str, tokens: int) -> Ticket:
    """Queue an item of a key and return its ticket."""
    return queue.add(Entry(Item(np.ones(tokens, np.int32)), ItemOptions(key_id=key_id), 0, 0, 0.0))


def test_an_empty_queue_forgets() -> None:
    """However the last entry left the queue, the next one starts at virtual time zero."""
    queue = FairQueue()
    for leave in (queue.take, queue.remove):
        for ticket in [add(queue, "a", 7), add(queue, "a", 4)]:
            leave(ticket)
        assert (len(queue), queue.tokens) == (0, 0)
        fresh = add(queue, "b", 3)
        assert fresh[0] == 3.0
        queue.remove(fresh)


def test_a_new_key_starts_where_the_one_being_served_started() -> None:
    """A new key neither waits behind what the other has queued nor gets credit for not having been there."""
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
    """Return a queue of entries with these keys, lengths and deadlines, a third of them already taken."""
    queue = FairQueue()
    for number, (key, tokens, deadline_s) in enumerate(arrivals):
        options = ItemOptions(key_id=key, deadline_s=deadline_s)
        queue.add(Entry(Item(np.ones(tokens, np.int32)), options, number, 0, 0.0))
    for _ in range(len(arrivals) // 3):
        queue.take(queue.head()[0])
    return queue


@given(arrivals=ARRIVALS, count=st.integers(1, 50))
def test_neighbours_of_the_head_come_by_likeness_in_length(
    arrivals: list[tuple[str, int, int | None]], count: int
) -> None:
    """Candidates are exactly the next `count` entries in order of tags, sorted by distance in length from the head."""
    queue = filled(arrivals)
    in_order = []
    copy = filled(arrivals)
    while copy:
        ticket, entry = copy.head()
        in_order.append((ticket, entry))
        copy.remove(ticket)
    window = in_order[:count]
    anchor = window[0][1].item.tokens
    expected = sorted(abs(entry.item.tokens - anchor) for _, entry in window)
    near = list(queue.near_head(count, math.inf))
    assert near[0][0] == window[0][0]
    assert [abs(entry.item.tokens - anchor) for _, entry in near] == expected
    assert sorted(ticket for ticket, _ in near) == [ticket for ticket, _ in window]
    for (ticket, entry), (next_ticket, next_entry) in pairwise(near):
        if entry.item.tokens == next_entry.item.tokens:
            assert ticket < next_ticket


@given(arrivals=ARRIVALS, times=st.lists(st.integers(0, 10), max_size=5))
def test_what_is_late_is_found_at_any_time(
    arrivals: list[tuple[str, int, int | None]], times: list[int]
) -> None:
    """Expired entries are found wherever they stand in the queue, and however often it was searched before."""
    queue = filled(arrivals)
    deadlines = {
        entry.call_id: entry.options.deadline_s
        for _, entry in queue.near_head(len(queue), math.inf)
    }
    for now_s in sorted(times):
        late = {queue.remove(ticket).call_id for ticket in queue.expired(now_s)}
        assert late == {n for n, end_s in deadlines.items() if end_s is not None and end_s <= now_s}
        deadlines = {n: end_s for n, end_s in deadlines.items() if n not in late}


def test_a_new_deadline_is_seen_after_an_empty_time() -> None:
    """What the queue remembers of deadlines never hides a later, nearer one."""
    queue = FairQueue()
    ticket = queue.add(Entry(Item(ONE), ItemOptions(deadline_s=5.0), 0, 0, 0.0))
    assert queue.expired(1.0) == []
    queue.remove(ticket)
    near = queue.add(Entry(Item(ONE), ItemOptions(deadline_s=2.0), 1, 0, 1.0))
    queue.add(Entry(Item(ONE), ItemOptions(), 2, 0, 1.0))
    assert queue.expired(1.9) == []
    assert queue.expired(2.0) == [near]


def test_what_goes_before_its_turn_moves_nobody_back() -> None:
    """A key that comes then stands where the next one stands, not behind all that was passed over."""
    queue = FairQueue()
    tickets = [add(queue, "a", 10) for _ in range(20)]
    queue.take(tickets[0])
    queue.take(tickets[15])  # like the head in length
    late = add(queue, "b", 5)
    assert late[0] == 5.0
    queue.remove(late)
    queue.take(tickets[1])
    assert add(queue, "c", 5)[0] == 15.0


def test_a_key_catches_up_on_what_it_missed_within_bounds() -> None:
    """A key gets back what it missed in a moment's absence, but no more than the credit's bound."""
    queue = FairQueue()
    tickets = [add(queue, "a", 1000) for _ in range(20)]
    queue.take(add(queue, "b", 10))
    for ticket in tickets[:4]:
        queue.take(ticket)  # virtual time is 3000
    late = add(queue, "b", 10)
    assert late[0] == 20.0
    queue.take(late)
    for ticket in tickets[4:18]:
        queue.take(ticket)
    assert add(queue, "b", 10)[0] == 17_000 - MAX_CREDIT_TOKENS + 10


def test_where_several_keys_wait_nobody_looks_far() -> None:
    """Where several keys wait only so many tokens of each are candidates; where one waits all its entries are."""
    queue = FairQueue()
    for _ in range(50):
        add(queue, "a", 10)
    assert len(list(queue.near_head(40, 100))) == 40
    for _ in range(50):
        add(queue, "b", 10)
    keys = [entry.options.key_id for _, entry in queue.near_head(90, 100)]
    assert keys.count("a") == keys.count("b") == 11


@given(
    arrivals=ARRIVALS,
    count=st.integers(1, 50),
    max_tokens=st.integers(0, 12),
    max_mixed_tokens=st.integers(0, 12),
)
def test_long_entries_are_passed_over_and_join_their_own_length_only(
    arrivals: list[tuple[str, int, int | None]], count: int, max_tokens: int, max_mixed_tokens: int
) -> None:
    """The head is the next entry that is short enough; above the length for mixing only its equals join it."""
    queue = filled(arrivals)
    in_order = []
    copy = filled(arrivals)
    while copy:
        ticket, entry = copy.head()
        in_order.append((ticket, entry.item.tokens))
        copy.remove(ticket)
    places = [place for place, (_, tokens) in enumerate(in_order) if tokens <= max_tokens]
    limits = {"max_tokens": max_tokens, "max_mixed_tokens": max_mixed_tokens}
    near = [(ticket, e.item.tokens) for ticket, e in queue.near_head(count, math.inf, **limits)]
    if not places:
        assert near == []
        assert queue.head_within(max_tokens) is None
        assert queue.shortest_tokens() > max_tokens
        return
    anchor = in_order[places[0]][1]
    assert near[0] == in_order[places[0]]
    expected = [
        (ticket, tokens)
        for ticket, tokens in in_order[: places[0] + count]
        if (tokens == anchor if anchor > max_mixed_tokens else tokens <= max_mixed_tokens)
        and tokens <= max_tokens
    ]
    assert sorted(near) == sorted(expected)
    distances = [abs(tokens - anchor) for _, tokens in near]
    assert distances == sorted(distances)


@given(arrivals=ARRIVALS, limit=st.integers(0, 12))
def test_costs_add_up_by_key_with_and_without_long_entries(
    arrivals: list[tuple[str, int, int | None]], limit: int
) -> None:
    """What waits is counted at its price, of all entries and of short ones, and is nothing in the end."""
    queue = FairQueue(lambda tokens: tokens + tokens**2 / 4)
    for number, (key, tokens, _) in enumerate(arrivals):
        entry = Entry(Item(np.ones(tokens, np.int32)), ItemOptions(key_id=key), number, 0, 0.0)
        queue.add(entry, limit + limit**2 / 4)
    left = [(key, tokens) for key, tokens, _ in arrivals]
    while queue:
        prices = [(key, n + n**2 / 4, n > limit) for key, n in left]
        assert queue.cost == pytest.approx(sum(price for _, price, _ in prices))
        assert queue.waiting_long == sum(is_long for _, _, is_long in prices)
        for key in "ab":
            for passes_long in (False, True):
                held = dict.fromkeys("abc", 0.0)
                for owner, price, is_long in prices:
                    held[owner] += 0.0 if passes_long and is_long else price
                own = held.pop(key) + 5.0
                before, _ = queue.cost_before(key, 5.0, passes_long=passes_long)
                assert before == pytest.approx(
                    own + sum(min(own, other) for other in held.values())
                )
        entry = queue.take(queue.head()[0])
        left.remove((entry.options.key_id, entry.item.tokens))
    assert queue.cost == 0.0


@given(ARRIVALS, st.integers(0, 50))
def test_the_oldest_is_whoever_came_first_of_those_that_wait(
    arrivals: list[tuple[str, int, int | None]], seed: int
) -> None:
    """Whatever order entries leave in."""
    queue, chooser = FairQueue(), np.random.default_rng(seed)
    waiting: dict[Ticket, float] = {}
    for number, (key, tokens, _) in enumerate(arrivals):
        entry = Entry(Item(np.ones(tokens, np.int32)), ItemOptions(key_id=key), 0, 0, float(number))
        waiting[queue.add(entry)] = float(number)
    while waiting:
        assert queue.oldest_s == min(waiting.values())
        ticket = list(waiting)[chooser.integers(len(waiting))]
        queue.remove(ticket)
        del waiting[ticket]
    assert queue.oldest_s is None
