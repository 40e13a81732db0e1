"""Front threads: short work passes long work, too much is refused, and what nobody waits for ends."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial
from typing import Final

import pytest
from nestvec.engine.front.front_threads import FrontThreads
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.errors import DeadlineError, NotReadyError, QueueFullError

LONG: Final = 1_000_000
WAIT_S: Final = 10.0


@pytest.fixture
def front() -> Iterator[FrontThreads]:
    """One thread, and room for three pieces of long work."""
    threads = FrontThreads(1, 3 * LONG)
    yield threads
    threads.close()


class LongWork:
    """Work of many slices, which goes on until it is told to stop or its ticket says so."""

    def __init__(self, ticket: WorkTicket | None = None) -> None:
        self.ticket = ticket or WorkTicket()
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self.ended_by: BaseException | None = None
        self.slices = 0

    def __call__(self) -> str:
        """Work."""
        self.has_begun.set()
        try:
            while not self.may_end.is_set():
                self.ticket.check()
                self.slices += 1
                time.sleep(0.001)
        except BaseException as error:
            self.ended_by = error
            raise
        return "long"

    async def begin(self, front: FrontThreads) -> "asyncio.Task[str]":
        """Hand it to the threads, and wait until one has taken it."""
        task = asyncio.create_task(front.run(self, self.ticket, chars=LONG))
        await asyncio.to_thread(self.has_begun.wait, WAIT_S)
        return task


async def until_idle(front: FrontThreads) -> None:
    """Wait until no thread works."""
    async with asyncio.timeout(WAIT_S):
        while front.busy or front.waiting:
            await asyncio.sleep(0.002)


async def test_results_and_errors_come_back(front: FrontThreads) -> None:
    """What work returns or raises is what its caller gets."""
    assert await front.run(lambda: 5, WorkTicket(), chars=1) == 5

    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await front.run(fails, WorkTicket(), chars=1)
    await until_idle(front)
    assert (front.waiting, front.waiting_chars) == (0, 0)


async def test_short_work_does_not_wait_behind_long_work(front: FrontThreads) -> None:
    """The only thread does short work between two slices of long work, also where more long work is waiting."""
    works = [LongWork(), LongWork()]
    first = await works[0].begin(front)
    second = asyncio.create_task(front.run(works[1], works[1].ticket, chars=LONG))
    await asyncio.sleep(0)
    async with asyncio.timeout(WAIT_S):
        for number in range(3):
            assert await front.run(partial(int, number), WorkTicket(), chars=500) == number
    assert not works[1].has_begun.is_set()
    for work in works:
        work.may_end.set()
    assert await first == await second == "long"


async def test_long_work_goes_on_while_there_is_always_short_work(front: FrontThreads) -> None:
    """A stream of short work leaves long work its turns."""
    work = LongWork()
    task = await work.begin(front)

    async def flood() -> None:
        while True:
            await front.run(lambda: time.sleep(0.002), WorkTicket(), chars=500)

    floods = [asyncio.create_task(flood()) for _ in range(20)]
    before = work.slices
    await asyncio.sleep(0.5)
    assert work.slices > before + 50
    for each in floods:
        each.cancel()
    work.may_end.set()
    assert await task == "long"


async def test_shorter_work_is_more_urgent_but_long_work_ages(
    front: FrontThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among what waits a million characters let pass what comes within their head start, and no later work."""
    now_s = 0.0
    monkeypatch.setattr(front, "clock", lambda: now_s)
    running = LongWork()
    task = await running.begin(front)
    done: list[str] = []
    works = []
    for arrived_s, chars, name in (
        (0, 900_000, "large"),
        (5, 100_000, "early"),
        (9, 100_000, "late"),
    ):
        now_s = arrived_s
        works.append(
            asyncio.create_task(front.run(partial(done.append, name), WorkTicket(), chars=chars))
        )
        await asyncio.sleep(0)
    running.may_end.set()
    await asyncio.gather(task, *works)
    assert done == ["early", "large", "late"]


async def test_waiting_work_is_bounded(front: FrontThreads) -> None:
    """Beyond the bound calls are refused with a time to retry after, and nothing is left of them."""
    running = LongWork()
    task = await running.begin(front)
    waiting = [
        asyncio.create_task(front.run(lambda: None, WorkTicket(), chars=LONG)) for _ in range(3)
    ]
    await asyncio.sleep(0)
    assert front.waiting_chars == 3 * LONG
    with pytest.raises(QueueFullError) as caught:
        await front.run(lambda: None, WorkTicket(), chars=1)
    assert caught.value.retry_after_s >= 1
    assert (front.waiting, front.refused) == (3, 1)
    running.may_end.set()
    await asyncio.gather(task, *waiting)
    assert (front.waiting, front.waiting_chars) == (0, 0)


async def test_an_empty_queue_takes_any_work(front: FrontThreads) -> None:
    """One call may be larger than the bound: it is what the bound on requests allows."""
    assert await front.run(lambda: 1, WorkTicket(), chars=100 * LONG) == 1


async def test_a_caller_who_leaves_ends_running_work(front: FrontThreads) -> None:
    """Work whose caller was cancelled ends at its next check, and the thread is free."""
    work = LongWork()
    task = await work.begin(front)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_idle(front)
    assert isinstance(work.ended_by, CancelledError)


async def test_a_caller_who_leaves_takes_waiting_work_along(front: FrontThreads) -> None:
    """Work that nobody waits for is not begun, counts for nothing, and its texts are let go."""
    running, waiting = LongWork(), LongWork()
    task = await running.begin(front)
    leaving = asyncio.create_task(front.run(waiting, waiting.ticket, chars=LONG))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert (front.waiting, front.waiting_chars) == (0, 0)
    running.may_end.set()
    await task
    await until_idle(front)
    assert not waiting.has_begun.is_set()


async def test_the_deadline_ends_work(front: FrontThreads) -> None:
    """Work looks at the deadline by itself, whoever waits."""
    end_s = time.monotonic() + 0.05
    work = LongWork(WorkTicket(lambda: end_s - time.monotonic()))
    with pytest.raises(DeadlineError):
        await front.run(work, work.ticket, chars=LONG)


async def test_closing_ends_everything() -> None:
    """Running work ends at its next check, waiting work is not begun, and both callers are told why."""
    front = FrontThreads(1, 3 * LONG)
    running, waiting = LongWork(), LongWork()
    task = await running.begin(front)
    other = asyncio.create_task(front.run(waiting, waiting.ticket, chars=LONG))
    await asyncio.sleep(0)
    await asyncio.to_thread(front.close)
    for each in (task, other):
        with pytest.raises(NotReadyError):
            await each
    with pytest.raises(NotReadyError):
        await front.run(lambda: None, WorkTicket(), chars=1)
    assert not waiting.has_begun.is_set()
