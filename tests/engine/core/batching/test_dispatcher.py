"""The dispatcher: what must run alone does, everything else goes on, nothing is lost."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.backend import CostModel
from nestvec.engine.core.batching.dispatcher import Assignment, Dispatcher
from nestvec.engine.core.batching.scheduler import Scheduler
from nestvec.engine.types import Layout, Priority

from tests.support.fakes import item, submission

WORKERS = 2


def make(max_short_cost: float = math.inf) -> Dispatcher:
    """Return a dispatcher with an empty queue."""
    scheduler = Scheduler(CostModel(Layout.PACKED, 0.0), 8, 64, max_short_cost=max_short_cost)
    return Dispatcher(scheduler, WORKERS)


def lengths_of(assignment: Assignment) -> list[int]:
    """Return the numbers of tokens of a batch's items."""
    return [entry.item.tokens for entry in assignment.batch.entries]


def test_a_suspect_waits_until_all_are_idle_and_holds_the_others_off() -> None:
    """A suspect waits until no worker is busy, then goes first and alone."""
    dispatcher = make()
    dispatcher.add(1, submission(*[item(*range(1, 9)) for _ in range(3)]), 0.0)
    first = dispatcher.take(0.0)
    dispatcher.add(2, submission(item(1), item(2)), 0.0, [True, False])
    assert not dispatcher.has_work()
    dispatcher.done(first)
    assert dispatcher.has_work()
    alone = dispatcher.take(0.0)
    assert alone.is_isolated
    assert [entry.item.ids.tolist() for entry in alone.batch.entries] == [[1]]
    assert not dispatcher.has_work()
    assert not dispatcher.has_work(is_priority=True)
    dispatcher.done(alone)
    assert dispatcher.has_work()


def test_the_priority_worker_holds_a_suspect_off_too() -> None:
    """The priority worker counts as busy like the others: a suspect waits for it too."""
    dispatcher = make()
    bulk = [item(*range(1, 9)) for _ in range(4)]
    dispatcher.add(1, submission(*bulk, priority=Priority.BULK), 0.0)
    busy = [dispatcher.take(0.0), dispatcher.take(0.0)]
    dispatcher.add(2, submission(item(1)), 0.0)
    assert dispatcher.has_work(is_priority=True)
    priority = dispatcher.take(0.0, is_priority=True)
    dispatcher.add(3, submission(item(2)), 0.0, [True])
    for assignment in busy:
        dispatcher.done(assignment)
    assert not dispatcher.has_work()
    dispatcher.done(priority)
    assert dispatcher.take(0.0).is_isolated


def test_a_late_suspect_is_not_run() -> None:
    """A suspect whose deadline passed while it waited is given as expired."""
    dispatcher = make()
    dispatcher.add(1, submission(item(1), deadline_s=5.0), 0.0, [True])
    assignment = dispatcher.take(6.0)
    assert not assignment.batch.entries
    assert [entry.call_id for entry in assignment.batch.expired] == [1]


def test_a_dropped_call_leaves_both_queues() -> None:
    """Both the ordinary items of a dropped call and its suspects leave."""
    dispatcher = make()
    dispatcher.add(1, submission(item(1), item(2)), 0.0, [True, False])
    dispatcher.add(2, submission(item(3)), 0.0, [True])
    dispatcher.drop(1)
    assert (dispatcher.waiting_items, dispatcher.waiting_tokens) == (1, 1)
    assert [entry.call_id for entry in dispatcher.take(0.0).batch.entries] == [2]


def test_queries_pass_long_ones_that_hold_every_worker() -> None:
    """The priority worker takes short items from behind the long ones that wait, then others, and never a long one."""
    dispatcher = make(max_short_cost=4)
    for call in range(4):
        dispatcher.add(call, submission(item(*[1] * 30)), 0.0)
    assert not dispatcher.has_work(is_priority=True)
    running = [dispatcher.take(0.0) for _ in range(WORKERS)]
    assert [lengths_of(assignment) for assignment in running] == [[30], [30]]
    assert not dispatcher.has_work(is_priority=True)  # only long ones wait
    dispatcher.add(4, submission(item(*[1] * 8), item(*[1] * 17), item(1, 2, 3), item(1, 2)), 0.0)
    assert dispatcher.has_work(is_priority=True)
    assert lengths_of(dispatcher.take(0.0, is_priority=True)) == [3, 2]
    assert dispatcher.has_work(is_priority=True)
    assert lengths_of(dispatcher.take(0.0, is_priority=True)) == [8]
    assert not dispatcher.has_work(is_priority=True)  # seventeen are over four times four
    dispatcher.done(running[0])
    assert lengths_of(dispatcher.take(0.0)) == [30]  # the oldest, as always


def test_the_priority_worker_leaves_long_queries_to_the_others_beside_bulk() -> None:
    """Beside bulk batches too it takes no long items: one would hold it for as long as any other worker."""
    dispatcher = make(max_short_cost=4)
    dispatcher.add(1, submission(*[item(*[1] * 8)] * 4, priority=Priority.BULK), 0.0)
    running = [dispatcher.take(0.0) for _ in range(WORKERS)]
    dispatcher.add(2, submission(item(*[1] * 20)), 0.0)
    assert not dispatcher.has_work(is_priority=True)
    dispatcher.add(3, submission(item(1)), 0.0)
    assert lengths_of(dispatcher.take(0.0, is_priority=True)) == [1]
    dispatcher.done(running[0])
    assert lengths_of(dispatcher.take(0.0)) == [20]


def test_queries_of_ordinary_length_keep_the_priority_worker_out() -> None:
    """Items that take a few times as long as a short one are no reason for one thread more than cores."""
    dispatcher = make(max_short_cost=4)
    dispatcher.add(1, submission(item(*[1] * 16), item(*[1] * 16), item(1)), 0.0)
    running = [dispatcher.take(0.0), dispatcher.take(0.0)]
    assert [lengths_of(assignment) for assignment in running] == [[16], [16]]
    assert not dispatcher.has_work(is_priority=True)
    assert not dispatcher.long


def test_what_runs_is_counted_and_forgotten() -> None:
    """Costs of running batches are counted, those of long ones apart, and are zero once all are done."""
    dispatcher = make(max_short_cost=2)
    dispatcher.add(1, submission(item(*[1] * 30), item(*[1] * 8)), 0.0)
    dispatcher.add(2, submission(item(1)), 0.0, [True])
    alone = dispatcher.take(0.0)
    assert (dispatcher.running_cost, dispatcher.waiting_cost) == (1, 38)
    dispatcher.done(alone)
    first, second = dispatcher.take(0.0), dispatcher.take(0.0)
    assert (first.is_long, second.is_long) == (True, False)
    assert ([first], 8) == (dispatcher.long, dispatcher.running_cost)
    dispatcher.done(second)
    dispatcher.done(first)
    assert (dispatcher.long, dispatcher.running_cost, dispatcher.waiting_cost) == ([], 0, 0)


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 10)), min_size=1, max_size=30),
    st.sampled_from([math.inf, 2.0]),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_everything_runs_once_and_suspects_alone(
    items: list[tuple[bool, bool, int]], max_short_cost: float, random: object
) -> None:
    """In whatever order workers come and go, every item runs once, suspects alone, long ones by no priority worker."""
    dispatcher = make(max_short_cost)
    for call, (is_alone, is_bulk, length) in enumerate(items):
        priority = Priority.BULK if is_bulk else Priority.INTERACTIVE
        dispatcher.add(call, submission(item(*[1] * length), priority=priority), 0.0, [is_alone])
    running: list[Assignment] = []
    seen: list[int] = []
    while dispatcher.waiting_items or running:
        is_priority_free = not any(assignment.is_priority for assignment in running)
        workers = sum(not assignment.is_priority for assignment in running)
        if workers < WORKERS and dispatcher.has_work():
            running.append(dispatcher.take(0.0))
        elif is_priority_free and dispatcher.has_work(is_priority=True):
            running.append(dispatcher.take(0.0, is_priority=True))
        else:
            assignment = running.pop(random.randrange(len(running)))  # type: ignore[attr-defined] # hypothesis's Random
            seen += [entry.call_id for entry in assignment.batch.entries]
            assert (
                not assignment.is_priority
                or max(lengths_of(assignment), default=0) <= 4 * max_short_cost
            )
            dispatcher.done(assignment)
        if any(assignment.is_isolated for assignment in running):
            assert len(running) == 1
            assert items[running[0].batch.entries[0].call_id][0]
    assert sorted(seen) == list(range(len(items)))
