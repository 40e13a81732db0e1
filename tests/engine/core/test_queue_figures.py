"""What operators read off a queue: how long the oldest has waited, and what the workers can do."""

import asyncio

import pytest
from nestvec.engine.results import RawVectors
from nestvec.engine.types import Priority

from tests.support.fakes import FakeBackend, FakeClock, fake_core, item, submission

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


async def test_the_oldest_of_each_class_is_told() -> None:
    """What runs does not wait; a class where nothing waits has age 0."""
    backend, clock = FakeBackend(), FakeClock()
    core = fake_core(backend, clock=clock)
    try:
        assert core.queue.ages_s() == {INTERACTIVE: 0.0, BULK: 0.0}
        backend.gate.clear()
        calls: list[asyncio.Task[RawVectors]] = []
        for priority, later_s in ((INTERACTIVE, 1.0), (BULK, 3.0), (INTERACTIVE, 5.0), (BULK, 7.0)):
            calls.append(asyncio.create_task(core.submit(submission(item(1), priority=priority))))
            await asyncio.sleep(0)
            if len(calls) == 1:
                await asyncio.to_thread(backend.started.acquire)  # it runs from now on
            clock.now_s += later_s
        assert core.queue.ages_s() == {INTERACTIVE: 12.0, BULK: 15.0}
        backend.gate.set()
        await asyncio.gather(*calls)
        assert core.queue.ages_s() == {INTERACTIVE: 0.0, BULK: 0.0}
    finally:
        backend.gate.set()
        core.close()


async def test_the_capacity_is_that_of_all_workers() -> None:
    """From the first estimate on; by turns that really ran once all workers were busy. Unknown is None."""
    core = fake_core(FakeBackend(), workers=2, first_token_s=0.01)
    assert core.queue.tokens_per_second() == pytest.approx(200)
    core.close()
    clock, backend = FakeClock(), FakeBackend()
    core = fake_core(backend, clock=clock)
    try:
        assert core.queue.tokens_per_second() is None
        for _ in range(3):
            backend.gate.clear()
            call = asyncio.create_task(core.submit(submission(item(1, 2, 3, 4, 5))))
            await asyncio.sleep(0)
            await asyncio.to_thread(backend.started.acquire)
            clock.now_s += 0.5
            backend.gate.set()
            await call
        async with asyncio.timeout(10):
            while core.queue.dispatcher.busy:
                await asyncio.sleep(0.001)
        assert core.queue.tokens_per_second() == pytest.approx(10)
    finally:
        backend.gate.set()
        core.close()
