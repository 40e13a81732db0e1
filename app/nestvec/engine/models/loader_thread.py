"""One thread that loads and closes models, apart from all others.

It is a daemon: a stopping process need not wait for a first download, which takes minutes. And it is one: two models
are not exported at once, which would take the memory of both.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class LoaderThread:
    """Runs work one after the other in a thread of its own, which starts with the first work."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do work in the thread and wait for its result; whoever stops waiting does not stop the work.

        Raises:
            Exception: Whatever the work raises.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def settle(result: list[Result], failure: BaseException | None) -> None:
            if future.done():
                return
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result[0])

        def run() -> None:
            result: list[Result] = []
            failure: Exception | None = None
            try:
                result.append(work())
            except Exception as error:  # noqa: BLE001 - handed to whoever awaits
                failure = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, failure)

        self._queue.put(run)
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run_queue, name="nestvec-load", daemon=True
            )
            self._thread.start()
        return await future

    def _run_queue(self) -> None:
        while True:
            self._queue.get()()
