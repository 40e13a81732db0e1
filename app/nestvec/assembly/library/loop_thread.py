"""An event loop in a thread of its own, which callers of any kind can hand work to."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

# How long to wait for a loop that is told to end; it is a daemon's, so nothing hangs on it.
CLOSE_TIMEOUT_S: Final = 30.0


class LoopThread:
    """Runs coroutines for callers with or without an event loop, in notebooks, scripts, and any number of threads."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="nestvec-library", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it takes work; the threads of a process are not in a fork of it."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run work and wait for it; a caller that is interrupted cancels it."""
        future = self._submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def run_async(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run work from another event loop, which is free meanwhile; a caller that is cancelled cancels it."""
        return await asyncio.wrap_future(self._submit(work))

    def close(self) -> None:
        """End the thread, where this process has it."""
        if not self.is_alive:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_TIMEOUT_S)

    def _submit(self, work: Coroutine[Any, Any, Result]) -> "Future[Result]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()
