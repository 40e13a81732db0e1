"""Promises of the scheduler, as properties over random arrivals."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.backend import CostModel
from nestvec.engine.core.batching.scheduler import (
    AGED_BULK_SHARE,
    AGEING_S,
    BULK_SHARE,
    MIN_SPLIT_TOKENS,
    Scheduler,
)
from nestvec.engine.types import Item, Layout, Priority, Submission
from numpy.typing import NDArray

from tests.support.fakes import submission

BUDGET = 20
calls = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), min_size=1, max_size=12)


def tokens_cost(lengths: NDArray[np.int64]) -> float:
    """Return the tokens plus a little for the padded view."""
    return float(lengths.sum() + 0.01 * len(lengths) * lengths.max() ** 2) if len(lengths) else 0.0


def make(lookahead: int = 8) -> Scheduler:
    """Return a scheduler with a small budget."""
    return Scheduler(tokens_cost, BUDGET, lookahead)


def call_of(lengths: list[int], **options: Any) -> Submission:
    """Return a call with items of these lengths."""
    return submission(*(Item(np.ones(n, np.int32)) for n in lengths), **options)


def fill(scheduler: Scheduler, arrivals: list[list[int]]) -> list[tuple[int, int]]:
    """Queue calls of these lengths and return all (call, position) pairs in order of arrival."""
    for call_id, lengths in enumerate(arrivals):
        scheduler.add(call_id, call_of(lengths), 0.0)
    return [(c, p) for c, lengths in enumerate(arrivals) for p in range(len(lengths))]


def drain(scheduler: Scheduler) -> list[list[tuple[int, int]]]:
    """Return all batches as (call, position) pairs."""
    batches = []
    while scheduler.waiting_items:
        batch = scheduler.next_batch(0.0)
        assert batch.entries, "work waited, but no batch was given"
        batches.append([(e.call_id, e.position) for e in batch.entries])
    return batches


@given(arrivals=calls, lookahead=st.integers(1, 20))
def test_each_item_leaves_exactly_once(arrivals: list[list[int]], lookahead: int) -> None:
    """Nothing is lost, nothing runs twice, and the counters return to zero."""
    scheduler = make(lookahead)
    for call_id, lengths in enumerate(arrivals):
        scheduler.add(call_id, call_of(lengths), 0.0)
    left = [pair for batch in drain(scheduler) for pair in batch]
    assert sorted(left) == [(c, p) for c, ls in enumerate(arrivals) for p in range(len(ls))]
    assert scheduler.waiting_tokens == 0
    assert scheduler.next_batch(0.0).entries == ()


@given(arrivals=calls)
def test_no_batch_is_over_the_budget_unless_one_item_is(arrivals: list[list[int]]) -> None:
    """An item that costs more than the budget runs, and runs alone."""
    scheduler = make()
    for call_id, lengths in enumerate(arrivals):
        scheduler.add(call_id, call_of(lengths), 0.0)
    while scheduler.waiting_items:
        entries = scheduler.next_batch(0.0).entries
        together = np.array([e.item.tokens for e in entries])
        assert len(entries) == 1 or tokens_cost(together) <= BUDGET


@given(arrivals=calls, lookahead=st.integers(1, 20))
def test_the_oldest_item_always_leaves_next(arrivals: list[list[int]], lookahead: int) -> None:
    """Nothing starves: sorting by length never makes the oldest wait."""
    scheduler = make(lookahead)
    waiting = fill(scheduler, arrivals)
    for batch in drain(scheduler):
        assert waiting[0] in batch
        waiting = [pair for pair in waiting if pair not in batch]


@given(arrivals=calls, lookahead=st.integers(1, 20))
def test_order_holds_outside_the_window(arrivals: list[list[int]], lookahead: int) -> None:
    """An item never overtakes more than the window allows."""
    scheduler = make(lookahead)
    waiting = fill(scheduler, arrivals)
    for batch in drain(scheduler):
        assert set(batch) <= set(waiting[:lookahead])
        waiting = [pair for pair in waiting if pair not in batch]


@given(arrivals=calls, dropped=st.integers(0, 11), rounds=st.integers(0, 3))
def test_dropped_calls_never_run(arrivals: list[list[int]], dropped: int, rounds: int) -> None:
    """What still waits of a dropped call is returned and gone; others are untouched."""
    scheduler = make()
    for call_id, lengths in enumerate(arrivals):
        scheduler.add(call_id, call_of(lengths), 0.0)
    done = [pair for _ in range(rounds) for pair in batch_pairs(scheduler)]
    gone = [(e.call_id, e.position) for e in scheduler.drop(dropped)]
    remaining = [pair for batch in drain(scheduler) for pair in batch]
    assert all(call_id == dropped for call_id, _ in gone)
    assert all(call_id != dropped for call_id, _ in remaining)
    expected = [(c, p) for c, ls in enumerate(arrivals) for p in range(len(ls))]
    assert sorted(done + gone + remaining) == expected


def batch_pairs(scheduler: Scheduler) -> list[tuple[int, int]]:
    """Return the next batch as (call, position) pairs."""
    return [(e.call_id, e.position) for e in scheduler.next_batch(0.0).entries]


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=10), late=st.sets(st.integers(0, 9))
)
def test_expired_items_never_run(lengths: list[int], late: set[int]) -> None:
    """Items past their deadline are set aside, and do not hold up the others."""
    scheduler = make(lookahead=100)
    for call_id, length in enumerate(lengths):
        scheduler.add(call_id, call_of([length], deadline_s=5.0 if call_id in late else None), 0.0)
    expired, ran = set(), set()
    while scheduler.waiting_items:
        batch = scheduler.next_batch(5.0)
        expired |= {e.call_id for e in batch.expired}
        ran |= {e.call_id for e in batch.entries}
    assert expired == late & set(range(len(lengths)))
    assert ran == set(range(len(lengths))) - late


def test_neighbours_in_length_share_a_batch() -> None:
    """Where short and long items wait, a batch holds one sort, so that there is little padding around attention."""
    scheduler = make(lookahead=100)
    scheduler.add(0, call_of([8, 1, 8, 1, 8, 1]), 0.0)
    assert [e.item.tokens for e in scheduler.next_batch(0.0).entries] == [8, 8]


mixed_calls = st.lists(
    st.tuples(
        st.lists(st.integers(1, 30), min_size=1, max_size=8),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(list(Priority)),
    ),
    min_size=1,
    max_size=12,
)


@given(arrivals=mixed_calls, dropped=st.integers(0, 11))
def test_with_classes_and_keys_each_item_still_leaves_once(
    arrivals: list[tuple[list[int], str, Priority]], dropped: int
) -> None:
    """Batches hold one class, nothing is lost, dropped calls never run, counters return to zero."""
    scheduler = make()
    for call_id, (lengths, key_id, priority) in enumerate(arrivals):
        scheduler.add(call_id, call_of(lengths, key_id=key_id, priority=priority), 0.0)
    gone = [(e.call_id, e.position) for e in scheduler.drop(dropped)]
    left = []
    while scheduler.waiting_items:
        batch = scheduler.next_batch(0.0)
        assert batch.entries
        assert {e.options.priority for e in batch.entries} == {batch.priority}
        left += [(e.call_id, e.position) for e in batch.entries]
    expected = [(c, p) for c, (ls, _, _) in enumerate(arrivals) for p in range(len(ls))]
    assert sorted(left + gone) == expected
    assert scheduler.waiting_tokens == 0


@given(arrivals=mixed_calls)
def test_within_a_key_and_class_the_head_always_leaves_next(
    arrivals: list[tuple[list[int], str, Priority]],
) -> None:
    """Without a window for length, order holds within each key and class."""
    scheduler = make(lookahead=1)
    for call_id, (lengths, key_id, priority) in enumerate(arrivals):
        scheduler.add(call_id, call_of(lengths, key_id=key_id, priority=priority), 0.0)
    seen: dict[tuple[str, Priority], list[tuple[int, int]]] = {}
    while scheduler.waiting_items:
        for entry in scheduler.next_batch(0.0).entries:
            queue = (entry.options.key_id, entry.options.priority)
            seen.setdefault(queue, []).append((entry.call_id, entry.position))
    assert all(order == sorted(order) for order in seen.values())


def test_a_query_passes_waiting_bulk() -> None:
    """The next batch holds the query alone: bulk does not slow it by sharing its batch."""
    scheduler = make()
    scheduler.add(0, call_of([5] * 50, priority=Priority.BULK), 0.0)
    scheduler.add(1, call_of([3]), 0.0)
    batch = scheduler.next_batch(0.0)
    assert [e.call_id for e in batch.entries] == [1]


@given(
    query=st.integers(1, 20), ingest=st.integers(1, 20), waited_s=st.sampled_from([0.0, AGEING_S])
)
def test_bulk_keeps_its_share_while_queries_flood(query: int, ingest: int, waited_s: float) -> None:
    """Where both always wait, bulk gets its share of the tokens, a larger one once aged, to within two batches."""
    scheduler = make()
    served = dict.fromkeys(Priority, 0)
    for turn in range(400):
        for priority, length in ((Priority.INTERACTIVE, query), (Priority.BULK, ingest)):
            while scheduler.waiting_of(priority) < 30:
                scheduler.add(turn, call_of([length], priority=priority), 0.0)
        batch = scheduler.next_batch(waited_s)
        served[batch.priority] += sum(e.item.tokens for e in batch.entries)
    total = sum(served.values())
    share = AGED_BULK_SHARE if waited_s else BULK_SHARE
    assert served[Priority.BULK] >= share * total - 2 * BUDGET
    assert served[Priority.INTERACTIVE] >= (1 - share) * total - 2 * BUDGET


@given(flood=st.integers(10, 200), few=st.integers(1, 10), length=st.integers(1, 9))
def test_a_small_key_does_not_wait_behind_a_large_one(flood: int, few: int, length: int) -> None:
    """The small key's items are done after about twice its own tokens, whatever the other has queued."""
    scheduler = make(lookahead=1)
    scheduler.add(0, call_of([length] * flood, key_id="large"), 0.0)
    scheduler.add(1, call_of([length] * few, key_id="small"), 0.0)
    served, left = 0, few
    while left:
        entries = scheduler.next_batch(0.0).entries
        served += sum(e.item.tokens for e in entries)
        left -= sum(e.call_id == 1 for e in entries)
    assert served <= 2 * few * length + BUDGET + 2 * length


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40), workers=st.integers(2, 5))
def test_idle_workers_share_what_waits(lengths: list[int], workers: int) -> None:
    """No batch is much larger than a worker's part, nothing is lost, and the last worker takes the rest."""
    scheduler = Scheduler(lambda some: float(some.sum()), 10_000, 1000)
    scheduler.add(0, call_of(lengths), 0.0)
    served: list[int] = []
    for idle in range(workers, 0, -1):
        part = max(MIN_SPLIT_TOKENS, scheduler.waiting_tokens / idle)
        batch = [e.item.tokens for e in scheduler.next_batch(0.0, idle_workers=idle).entries]
        assert idle == 1 or sum(batch) <= max(part, *batch, 0)
        served += batch
    assert sorted(served) == sorted(lengths)


def test_only_one_class_where_asked() -> None:
    """The scheduler gives no bulk where only interactive items are asked for."""
    scheduler = make()
    scheduler.add(0, call_of([5], priority=Priority.BULK), 0.0)
    assert scheduler.next_batch(0.0, only=Priority.INTERACTIVE).entries == ()
    assert scheduler.waiting_items == 1


def test_rows_of_the_heads_length_go_alone_where_they_nearly_fill_the_batch() -> None:
    """Rows of the head's length go alone, as they need no mask and no padded view; a few of them get company."""
    for alike, expected in ((9, [10] * 9), (3, [10] * 3 + [11] * 6)):
        queue = Scheduler(lambda lengths: float(lengths.sum()), 100, 64)
        queue.add(1, call_of([10] * alike), 0.0)
        queue.add(2, call_of([11] * 6), 0.0)
        assert [entry.item.tokens for entry in queue.next_batch(0.0).entries] == expected


@given(st.integers(0, 10_000), st.sampled_from([0.0, 1 / 2304]))
@settings(max_examples=20, deadline=None)
def test_a_flood_leaves_another_key_its_half(seed: int, pair_cost: float) -> None:
    """Whatever the lengths, a caller that sends request after request has half the tokens while a flood waits."""
    random = np.random.default_rng(seed)
    scheduler = Scheduler(CostModel(Layout.PACKED, pair_cost), 512, 1024)

    def request(call_id: int, key: str, count: int) -> None:
        lengths = random.integers(3, 200, count)
        scheduler.add(call_id, call_of(lengths.tolist(), key_id=key), 0.0)

    for call in range(32):
        request(call, "flood", 64)
    served = {"flood": 0, "quiet": 0}
    left: dict[int, int] = {}
    next_call = 1000
    for _ in range(600):
        if not left:
            request(next_call, "quiet", 64)
            left[next_call] = 64
            next_call += 1
        if scheduler.waiting_items < 2000:
            request(next_call, "flood", 64)
            next_call += 1
        for entry in scheduler.next_batch(0.0).entries:
            served[entry.options.key_id] += entry.item.tokens
            if entry.call_id in left:
                left[entry.call_id] -= 1
                if not left[entry.call_id]:
                    del left[entry.call_id]
    assert served["quiet"] >= 0.45 * sum(served.values())
    assert served["flood"] >= 0.45 * sum(served.values())


MIXED = 10  # items of up to so many tokens may share a batch with any others
busy_calls = st.lists(
    st.tuples(
        st.lists(st.sampled_from([1, 2, 9, 10, 11, 12, 30]), min_size=1, max_size=8),
        st.sampled_from(["a", "b"]),
        st.sampled_from(list(Priority)),
        st.sampled_from([(), (1,)]),
    ),
    min_size=1,
    max_size=12,
)
askers = st.lists(
    st.tuples(
        st.sampled_from([None, *Priority]), st.integers(1, 3), st.sampled_from([9.0, math.inf])
    ),
    max_size=30,
)


@given(arrivals=busy_calls, asks=askers, budget=st.sampled_from([5, BUDGET, 100]))
@settings(max_examples=60)
def test_long_items_share_a_batch_with_their_own_length_only(
    arrivals: list[tuple[list[int], str, Priority, tuple[int, ...]]],
    asks: list[tuple[Priority | None, int, float]],
    budget: int,
) -> None:
    """Whoever asks, a batch holds short items or items of one length, within the budget, and each item leaves once."""
    scheduler = Scheduler(tokens_cost, budget, 64, max_mixed_tokens=MIXED)
    for call_id, (lengths, key_id, priority, exits) in enumerate(arrivals):
        scheduler.add(call_id, call_of(lengths, key_id=key_id, priority=priority, exits=exits), 0.0)
    left = []
    asked = iter(asks)
    while scheduler.waiting_items:
        only, idle_workers, max_tokens = next(asked, (None, 1, math.inf))
        shortest = min(scheduler.shortest_tokens(p) for p in ([only] if only else Priority))
        batch = scheduler.next_batch(
            0.0, only=only, max_tokens=max_tokens, idle_workers=idle_workers
        )
        lengths = [entry.item.tokens for entry in batch.entries]
        # Where a class is not asked for, it is chosen first, and the choice may hold long items only.
        has_short = shortest < math.inf and shortest <= max_tokens
        assert lengths or not has_short or (only is None and max_tokens < math.inf)
        assert max(lengths, default=0) <= max_tokens
        assert max(lengths, default=0) <= MIXED or len(set(lengths)) == 1
        assert len(lengths) <= 1 or tokens_cost(np.array(lengths)) <= budget
        assert batch.cost == pytest.approx(sum(tokens_cost(np.array([n])) for n in lengths))
        left += [(e.call_id, e.position) for e in batch.entries]
    assert sorted(left) == [(c, p) for c, (ls, *_) in enumerate(arrivals) for p in range(len(ls))]
    assert scheduler.waiting_cost == 0


@given(arrivals=calls, lookahead=st.integers(1, 20))
def test_the_oldest_item_leaves_next_also_where_long_ones_keep_apart(
    arrivals: list[list[int]], lookahead: int
) -> None:
    """Nothing starves, neither long items among short ones nor short ones among long ones."""
    scheduler = Scheduler(tokens_cost, BUDGET, lookahead, max_mixed_tokens=MIXED)
    waiting = fill(scheduler, arrivals)
    for batch in drain(scheduler):
        assert waiting[0] in batch
        waiting = [pair for pair in waiting if pair not in batch]


def test_long_items_of_one_length_share_a_batch_with_several_keys() -> None:
    """Equals of the head come before shorter ones, whatever key they are of, as far as fairness lets them."""
    scheduler = Scheduler(lambda lengths: float(lengths.sum()), 100, 64, max_mixed_tokens=MIXED)
    scheduler.add(1, call_of([40, 39, 5], key_id="a"), 0.0)
    scheduler.add(2, call_of([40, 40, 5], key_id="b"), 0.0)
    batches = []
    while scheduler.waiting_items:
        batches.append([entry.item.tokens for entry in scheduler.next_batch(0.0).entries])
    assert batches[0] == [40, 40]
    assert sorted(batches[1:]) == [[5, 5], [39], [40]]


def test_the_most_tokens_of_a_short_item_follow_its_cost() -> None:
    """Short and long are told by the price of an item alone, whatever that grows with."""
    scheduler = make()
    assert scheduler.passing_tokens == (math.inf, math.inf)
    for cost in (0.2, 1.2, 20.0, 500.0):
        scheduler.max_short_cost = cost
        limits = cost, scheduler.long_cost
        for limit, most in zip(limits, scheduler.passing_tokens, strict=True):
            tokens = int(most)
            assert not tokens or scheduler.cost_alone(tokens) <= limit
            assert scheduler.cost_alone(tokens + 1) > limit
