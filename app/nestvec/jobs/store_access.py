"""The store as the event loop sees it: its calls run in threads, and are tried again while the store is away."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from nestvec.errors import StoreError
from nestvec.jobs.objects import MissingObjectError
from nestvec.jobs.store import JobStore
from nestvec.jobs.types import JobObserver
from nestvec.observability.logs import get_logger

log = get_logger(__name__)

# SQLite's connection is used by one thread at a time.
SHARED_DATABASE_THREADS: Final = 4
CONTENT_THREADS: Final = 8
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 10.0
LOG_INTERVAL_S: Final = 60.0

T = TypeVar("T")
Work = Callable[[JobStore], T]


class StoreAccess:
    """Calls a store off the event loop.

    Args:
        store: The store.
        observer: Told whether the store answers.
    """

    def __init__(self, store: JobStore, observer: JobObserver) -> None:
        self.store = store
        self._observer = observer
        threads = SHARED_DATABASE_THREADS if store.has_other_servers else 1
        self._rows = ThreadPoolExecutor(threads, thread_name_prefix="nestvec-jobs")
        # The disk or an object store may take their time, and rows must not wait for them.
        self._contents = ThreadPoolExecutor(CONTENT_THREADS, thread_name_prefix="nestvec-parts")
        self._logged_s = -LOG_INTERVAL_S

    async def rows(self, work: Work[T]) -> T:
        """Call what reads or writes rows, for milliseconds."""
        return await asyncio.get_running_loop().run_in_executor(self._rows, work, self.store)

    async def contents(self, work: Work[T]) -> T:
        """Call what reads or writes contents, for as long as the disk or the object store takes."""
        return await asyncio.get_running_loop().run_in_executor(self._contents, work, self.store)

    async def insist(self, run: Callable[[Work[T]], Awaitable[T]], work: Work[T]) -> T:
        """Call until the store is there: a full disk and a database that is being restarted only make a batch pause.

        Args:
            run: `rows` or `contents`.
            work: What is called; it may have been done already when it is called again.

        Raises:
            MissingObjectError: There is no such object, which waiting does not help.
        """
        pause_s, is_away = FIRST_PAUSE_S, False
        while True:
            try:
                result = await run(work)
            except MissingObjectError:
                raise
            except (StoreError, OSError) as error:
                is_away = True
                self._observer.store_answers(is_up=False)
                if time.monotonic() - self._logged_s >= LOG_INTERVAL_S:
                    self._logged_s = time.monotonic()
                    reason = error.message if isinstance(error, StoreError) else error.strerror
                    log.warning("batches_paused", reason=reason)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                if is_away:
                    self._observer.store_answers(is_up=True)
                    log.info("batches_resumed")
                return result

    async def close(self) -> None:
        """Wait for the calls under way, and close the store."""
        for threads in (self._contents, self._rows):
            await asyncio.to_thread(threads.shutdown, cancel_futures=True)
        self.store.close()
