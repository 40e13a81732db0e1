"""What becomes of a batch that failed: it is split until the culprit stands alone, so that only its call fails.

Where memory was short batches get smaller from then on, and an item that did not fit even alone in its batch runs once
more while nothing else does. Where the device is gone nothing is tried again in this process.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nestvec.engine.backend import Backend
from nestvec.engine.core.batching.fair_queue import Entry
from nestvec.engine.core.pending_call import as_item_error
from nestvec.engine.core.ports import CrashGuard
from nestvec.engine.core.work_queue import WorkQueue
from nestvec.engine.observer import Observer
from nestvec.errors import BackendLostError, BackendMemoryError, MemoryShortError, NotReadyError

RETRY_AFTER_S = 5.0  # enough for a new process, or for memory to be free again


@dataclass(slots=True)
class FailurePolicy:
    """Decides about failed batches of one core; workers call it.

    Attributes:
        model: Name for the observer.
        backend: Prices the batches that memory did not hold.
        queue: Where calls fail, and items wait to run alone.
        observer: Told when memory was short.
        crash_guard: Knows suspects of crashes, and waits for the end of a process that cannot go on.
        is_lost: Whether the device is gone.
    """

    model: str
    backend: Backend
    queue: WorkQueue
    observer: Observer
    crash_guard: CrashGuard
    is_lost: bool = False

    def handle(
        self, error: Exception, entries: Sequence[Entry], *, is_isolated: bool
    ) -> Sequence[Sequence[Entry]]:
        """Decide what becomes of a batch.

        Args:
            error: What it failed with.
            entries: The batch, at least one entry.
            is_isolated: Whether nothing else ran meanwhile.

        Returns:
            Parts of it that the worker runs now, one after the other; empty where it is settled.
        """
        if isinstance(error, BackendLostError):
            self._give_up(entries)
            return ()
        is_memory = isinstance(error, BackendMemoryError | MemoryError)
        if is_memory:
            self._shrink(entries)
        if len(entries) > 1:
            middle = len(entries) // 2
            return entries[:middle], entries[middle:]
        (entry,) = entries
        if is_memory:
            self._run_alone(entry, is_isolated=is_isolated)
        else:
            self.queue.fail(entry.call_id, as_item_error(error, entry.item))
        return ()

    def clear(self, entry: Entry) -> None:
        """Note that an item ran alone and did no harm: it is no suspect of a crash any more."""
        self.crash_guard.clear(entry.item, entry.options)

    def _give_up(self, entries: Sequence[Entry]) -> None:
        """The device is gone: only a new process can go on. Where one will come, it gets these items too."""
        self.is_lost = True
        self.crash_guard.await_end()
        for entry in entries:
            message = "The GPU was lost; the engine is being restarted."
            self.queue.fail(entry.call_id, NotReadyError(message, retry_after_s=RETRY_AFTER_S))

    def _shrink(self, entries: Sequence[Entry]) -> None:
        """Memory was short: batches are smaller from now on, for a while."""
        lengths = np.fromiter((entry.item.tokens for entry in entries), np.int64, len(entries))
        self.queue.memory_was_short(self.backend.cost(lengths))
        self.observer.memory_was_short(self.model)

    def _run_alone(self, entry: Entry, *, is_isolated: bool) -> None:
        """An item for which memory was short runs once more, when nothing else does; after that it fails."""
        if not is_isolated:
            self.queue.isolate(entry)
            return
        message = "The server has not enough memory for this input just now."
        self.queue.fail(entry.call_id, MemoryShortError(message, retry_after_s=RETRY_AFTER_S))
