"""The desk: what must run alone does, everything else goes on, nothing is lost."""

from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.backend import CostModel
from nestvec.engine.core.dispatcher import Desk, Task
from nestvec.engine.core.scheduler import Scheduler
from nestvec.engine.types import Layout, Priority

from tests.support.fakes import item

WORKERS = 2


def desk() -> Desk:
    """An empty one."""
    return Desk(Scheduler(CostModel(Layout.PACKED, 0.0), 8, 64), WORKERS)


def test_a_suspect_waits_until_all_are_idle_and_holds_the_others_off() -> None:
    """Then it goes first, alone."""
    made = desk()
    made.add(1, [item(*range(1, 9)) for _ in range(3)], 0.0)
    first = made.take(0.0)
    made.add(2, [item(1), item(2)], 0.0, [True, False])
    assert not made.has_work()
    made.done(first)
    assert made.has_work()
    alone = made.take(0.0)
    assert alone.is_isolated
    assert [entry.item.ids.tolist() for entry in alone.micro.entries] == [[1]]
    assert not made.has_work()
    assert not made.has_work(is_express=True)
    made.done(alone)
    assert made.has_work()


def test_the_express_holds_a_suspect_off_too() -> None:
    """It is a worker like the others."""
    made = desk()
    made.add(1, [item(*range(1, 9), priority=Priority.BULK) for _ in range(4)], 0.0)
    busy = [made.take(0.0), made.take(0.0)]
    made.add(2, [item(1)], 0.0)
    assert made.has_work(is_express=True)
    express = made.take(0.0, is_express=True)
    made.add(3, [item(2)], 0.0, [True])
    for task in busy:
        made.done(task)
    assert not made.has_work()
    made.done(express)
    assert made.take(0.0).is_isolated


def test_a_late_suspect_is_not_run() -> None:
    """Its deadline passed while it waited."""
    made = desk()
    made.add(1, [item(1, deadline_s=5.0)], 0.0, [True])
    task = made.take(6.0)
    assert not task.micro.entries
    assert [entry.call_id for entry in task.micro.expired] == [1]


def test_a_dropped_call_leaves_both_queues() -> None:
    """Its suspects too."""
    made = desk()
    made.add(1, [item(1), item(2)], 0.0, [True, False])
    made.add(2, [item(3)], 0.0, [True])
    made.drop(1)
    assert (made.waiting_items, made.waiting_tokens) == (1, 1)
    assert [entry.call_id for entry in made.take(0.0).micro.entries] == [2]


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 10)), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_everything_runs_once_and_suspects_alone(
    items: list[tuple[bool, bool, int]], random: object
) -> None:
    """Whatever the order in which workers come and go."""
    made = desk()
    for call, (is_alone, is_bulk, length) in enumerate(items):
        priority = Priority.BULK if is_bulk else Priority.INTERACTIVE
        made.add(call, [item(*[1] * length, priority=priority)], 0.0, [is_alone])
    running: list[Task] = []
    seen: list[int] = []
    while made.waiting_items or running:
        express_is_free = not any(task.is_express for task in running)
        workers = sum(not task.is_express for task in running)
        if workers < WORKERS and made.has_work():
            running.append(made.take(0.0))
        elif express_is_free and made.has_work(is_express=True):
            running.append(made.take(0.0, is_express=True))
        else:
            task = running.pop(random.randrange(len(running)))  # type: ignore[attr-defined] # hypothesis's Random
            seen += [entry.call_id for entry in task.micro.entries]
            made.done(task)
        if any(task.is_isolated for task in running):
            assert len(running) == 1
            assert items[running[0].micro.entries[0].call_id][0]
    assert sorted(seen) == list(range(len(items)))
