"""Promises of the scheduler, as properties over random arrivals."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.engine.scheduler import Scheduler
from app.engine.types import Item

BUDGET = 20
calls = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), min_size=1, max_size=12)


def tokens_cost(lengths: NDArray[np.int64]) -> float:
    """Tokens plus a little for the padded view."""
    return float(lengths.sum() + 0.01 * len(lengths) * lengths.max() ** 2) if len(lengths) else 0.0


def make(lookahead: int = 8) -> Scheduler:
    """A scheduler with a small budget."""
    return Scheduler(tokens_cost, BUDGET, lookahead)


def items(lengths: list[int], deadline_s: float | None = None) -> list[Item]:
    """Items of these lengths."""
    return [Item(ids=np.ones(n, np.int32), deadline_s=deadline_s) for n in lengths]


def drain(scheduler: Scheduler) -> list[list[tuple[int, int]]]:
    """All batches as (call, position) pairs."""
    batches = []
    while scheduler.waiting_items:
        micro = scheduler.next_batch(0.0)
        assert micro.entries, "work waited, but no batch was given"
        batches.append([(e.call_id, e.position) for e in micro.entries])
    return batches


@given(arrivals=calls, lookahead=st.integers(1, 20))
def test_each_item_leaves_exactly_once(arrivals: list[list[int]], lookahead: int) -> None:
    """Nothing is lost, nothing runs twice, and the counters return to zero."""
    scheduler = make(lookahead)
    for call_id, lengths in enumerate(arrivals):
        scheduler.add(call_id, items(lengths), 0.0)
    left = [pair for batch in drain(scheduler) for pair in batch]
    assert sorted(left) == [(c, p) for c, ls in enumerate(arrivals) for p in range(len(ls))]
    assert scheduler.waiting_tokens == 0
    assert scheduler.next_batch(0.0).entries == ()


@given(arrivals=calls)
def test_no_batch_is_over_the_budget_unless_one_item_is(arrivals: list[list[int]]) -> None:
    """An item dearer than the budget runs, and runs alone."""
    scheduler = make()
    for call_id, lengths in enumerate(arrivals):
        scheduler.add(call_id, items(lengths), 0.0)
    while scheduler.waiting_items:
        entries = scheduler.next_batch(0.0).entries
        together = np.array([e.item.tokens for e in entries])
        assert len(entries) == 1 or tokens_cost(together) <= BUDGET


@given(arrivals=calls, lookahead=st.integers(1, 20))
def test_the_oldest_item_always_leaves_next(arrivals: list[list[int]], lookahead: int) -> None:
    """Nothing starves: sorting by length never makes the oldest wait."""
    scheduler = make(lookahead)
    waiting: list[tuple[int, int]] = []
    for call_id, lengths in enumerate(arrivals):
        scheduler.add(call_id, items(lengths), 0.0)
        waiting += [(call_id, position) for position in range(len(lengths))]
    for batch in drain(scheduler):
        assert waiting[0] in batch
        waiting = [pair for pair in waiting if pair not in batch]


@given(arrivals=calls, lookahead=st.integers(1, 20))
def test_order_holds_outside_the_window(arrivals: list[list[int]], lookahead: int) -> None:
    """An item never overtakes more than the window allows."""
    scheduler = make(lookahead)
    waiting: list[tuple[int, int]] = []
    for call_id, lengths in enumerate(arrivals):
        scheduler.add(call_id, items(lengths), 0.0)
        waiting += [(call_id, position) for position in range(len(lengths))]
    for batch in drain(scheduler):
        assert set(batch) <= set(waiting[:lookahead])
        waiting = [pair for pair in waiting if pair not in batch]


@given(arrivals=calls, dropped=st.integers(0, 11), rounds=st.integers(0, 3))
def test_dropped_calls_never_run(arrivals: list[list[int]], dropped: int, rounds: int) -> None:
    """What still waits of a dropped call is returned and gone; others are untouched."""
    scheduler = make()
    for call_id, lengths in enumerate(arrivals):
        scheduler.add(call_id, items(lengths), 0.0)
    done = [pair for _ in range(rounds) for pair in batch_pairs(scheduler)]
    gone = [(e.call_id, e.position) for e in scheduler.drop(dropped)]
    rest = [pair for batch in drain(scheduler) for pair in batch]
    assert all(call_id == dropped for call_id, _ in gone)
    assert all(call_id != dropped for call_id, _ in rest)
    expected = [(c, p) for c, ls in enumerate(arrivals) for p in range(len(ls))]
    assert sorted(done + gone + rest) == expected


def batch_pairs(scheduler: Scheduler) -> list[tuple[int, int]]:
    """One batch as pairs."""
    return [(e.call_id, e.position) for e in scheduler.next_batch(0.0).entries]


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=10), late=st.sets(st.integers(0, 9))
)
def test_expired_items_never_run(lengths: list[int], late: set[int]) -> None:
    """Items past their deadline are set aside, and do not hold up the others."""
    scheduler = make(lookahead=100)
    for call_id, length in enumerate(lengths):
        scheduler.add(call_id, items([length], deadline_s=5.0 if call_id in late else None), 0.0)
    expired, ran = set(), set()
    while scheduler.waiting_items:
        micro = scheduler.next_batch(5.0)
        expired |= {e.call_id for e in micro.expired}
        ran |= {e.call_id for e in micro.entries}
    assert expired == late & set(range(len(lengths)))
    assert ran == set(range(len(lengths))) - late


def test_neighbours_in_length_share_a_batch() -> None:
    """With short and long items mixed, a batch holds one kind: little padding around attention."""
    scheduler = make(lookahead=100)
    scheduler.add(0, items([8, 1, 8, 1, 8, 1]), 0.0)
    assert [e.item.tokens for e in scheduler.next_batch(0.0).entries] == [8, 8]
