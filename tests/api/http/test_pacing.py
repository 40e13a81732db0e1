"""Many requests with long work together hold others up no longer than one of them does."""

import asyncio
import threading
import time
from functools import partial

from nestvec.api.http.pacing import PacedThread, SlicePacer


async def test_one_slice_each_time_the_loop_goes_round() -> None:
    """Of ten requests that are sliced one has its slice between two turns of anybody else, and each gets as many."""
    pacer, slices = SlicePacer(), list[int]()

    async def work(number: int) -> None:
        for _ in range(5):
            await pacer.next()
            slices.append(number)

    working = [asyncio.create_task(work(number)) for number in range(10)]
    most_between = last = 0
    while not all(task.done() for task in working):
        await asyncio.sleep(0)
        most_between, last = max(most_between, len(slices) - last), len(slices)
    assert most_between == 1
    assert sorted(slices) == sorted(list(range(10)) * 5)
    assert sorted(slices[:10]) == list(range(10))


async def test_who_gives_up_costs_no_turn() -> None:
    """A request that is cancelled while it waits leaves its turn to the next."""
    pacer = SlicePacer()
    waiting = [asyncio.create_task(pacer.next()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    await waiting[2]
    assert [task.cancelled() for task in waiting] == [True, True, False]


def test_another_loop() -> None:
    """A pacer goes on in another loop, whatever was left waiting in the one before."""
    pacer = SlicePacer()

    async def leave() -> None:
        waiting = asyncio.create_task(pacer.next())
        await asyncio.sleep(0)
        waiting.cancel()

    slices = list[str]()

    async def go_on() -> None:
        await asyncio.wait_for(pacer.next(), 5)
        slices.append("slice")

    asyncio.run(leave())
    asyncio.run(go_on())
    assert slices == ["slice"]


async def test_a_thread_that_rests() -> None:
    """Behind each piece of work the thread rests as long as it took; results and errors come at once."""
    thread = PacedThread("test")
    began = list[float]()

    def work(duration_s: float) -> str:
        began.append(time.monotonic())
        time.sleep(duration_s)
        return threading.current_thread().name

    first_s = time.monotonic()
    name = await thread.run(partial(work, 0.1))
    took_s = time.monotonic() - first_s
    assert name.startswith("test")
    await thread.run(partial(work, 0.0))
    assert began[1] - began[0] >= 0.2
    assert took_s < began[1] - began[0]
