"""Turns for long work, so that many requests together hold up others no longer than one of them does."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

Result = TypeVar("Result")


class SlicePacer:
    """Gives all requests together one slice of the event loop each time that it goes round.

    Timers would not do: where slices take longer than foreseen, many of them are due in one round.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def next(self) -> None:
        """Wait for the next slice, in the order of asking."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            # Another loop than before, as in tests: nobody of the old one waits any more.
            self._loop, self._waiting = loop, deque()
        turn = loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            loop.call_soon(self._give_turn)
        await turn

    def _give_turn(self) -> None:
        """Wake the first who waits, and come again in the next round for the one behind him."""
        loop, waiting = self._loop, self._waiting
        while waiting and waiting[0].done():
            waiting.popleft()  # gave up
        if waiting and loop is not None:
            waiting[0].set_result(None)
            loop.call_soon(self._give_turn)


class PacedThread:
    """A thread for work that keeps Python's global lock all the while: behind each piece it rests as long as that took.

    The event loop wants the lock back several times for each request, and would wait for a piece each time.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._free_at_s = 0.0

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do a piece of work, in the order of asking."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, work)

    def _do(self, work: Callable[[], Result]) -> Result:
        time.sleep(max(0.0, self._free_at_s - time.monotonic()))
        began_s = time.monotonic()
        try:
            return work()
        finally:
            now_s = time.monotonic()
            self._free_at_s = now_s + (now_s - began_s)


# One for each process, as it has one event loop.
PACER: Final = SlicePacer()
