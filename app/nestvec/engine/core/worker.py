"""A worker thread: takes the next micro-batch the moment it is free, runs it, delivers what it gave."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nestvec.engine.backend import Backend
from nestvec.engine.core.batch_reporter import BatchReporter
from nestvec.engine.core.batch_runner import BatchOutput, run_items
from nestvec.engine.core.batching.dispatcher import Assignment
from nestvec.engine.core.batching.fair_queue import Entry
from nestvec.engine.core.failures import FailurePolicy
from nestvec.engine.core.pending_call import as_item_error
from nestvec.engine.core.ports import InFlightSlot
from nestvec.engine.core.work_queue import WorkQueue
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import DeadlineError, DegenerateVectorError


@dataclass(slots=True)
class Worker:
    """One thread that runs batches until its queue is closed.

    Attributes:
        name: Name of its thread.
        backend: What runs the batches.
        pooler: What is made of token states.
        queue: Where work comes from, and rows go to.
        failures: Decides about batches that failed.
        reporter: Told of every batch.
        slot: Where it notes what it runs.
        clock: Monotonic seconds.
        is_priority: Whether it runs interactive items only that are not long, while bulk or long ones hold the others.
        running: Monotonic start and entries of the batch that it runs; None while it waits.
    """

    name: str
    backend: Backend
    pooler: Pooler
    queue: WorkQueue
    failures: FailurePolicy
    reporter: BatchReporter
    slot: InFlightSlot
    clock: Callable[[], float]
    is_priority: bool = False
    running: tuple[float, Sequence[Entry]] | None = None
    _thread: threading.Thread = field(init=False)

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has ended; the queue must be closed."""
        self._thread.join()

    def _work(self) -> None:
        """Take, run and deliver batches for as long as the queue is open."""
        try:
            while (assignment := self.queue.take(is_priority=self.is_priority)) is not None:
                self._run_safely(assignment)
                self.queue.done(assignment)
        finally:
            self.slot.release()

    def _run_safely(self, assignment: Assignment) -> None:
        """Run a batch; a fault of the engine's own fails its calls and never ends the worker."""
        entries = assignment.batch.entries
        try:
            for entry in assignment.batch.expired:
                late = DeadlineError("The deadline passed in the queue.")
                self.queue.fail(entry.call_id, late, "deadline")
            if entries:
                self.slot.begin([entry.item for entry in entries], [e.options for e in entries])
                self.running = self.clock(), entries
                self._run(entries, is_lone=assignment.is_lone, is_isolated=assignment.is_isolated)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next batch must run
            for entry in entries:
                self.queue.fail(entry.call_id, as_item_error(error, entry.item))
        finally:
            self.running = None
            self.slot.end()

    def _run(
        self, entries: Sequence[Entry], *, is_lone: bool = False, is_isolated: bool = False
    ) -> None:
        """Run one micro-batch and deliver it; where it fails, run the parts that the failure policy gives back."""
        started_s = self.clock()
        try:
            output = run_items(
                self.backend,
                [entry.item for entry in entries],
                self.pooler,
                [entry.options for entry in entries],
                is_lone=is_lone,
            )
        except Exception as error:  # noqa: BLE001 - a batch loop must outlive whatever a batch does
            self.reporter.report(entries, started_s, failed=True)
            for part in self.failures.handle(error, entries, is_isolated=is_isolated):
                self._run(part)
            return
        self.reporter.report(entries, started_s)
        self._deliver(entries, output, started_s)
        if is_isolated:
            self.failures.clear(entries[0])

    def _deliver(self, entries: Sequence[Entry], output: BatchOutput, started_s: float) -> None:
        """Put each item's rows into its call; complete calls wake their callers, unusable rows fail theirs."""
        complete = self.queue.put(entries, output, started_s)
        now_s = self.clock()
        for call in complete:
            call.finish(now_s)
        for number in np.flatnonzero(output.is_degenerate).tolist():
            error = DegenerateVectorError(
                "The model gave no usable vector (NaN, infinity or all zeros) for this input.",
                input_index=entries[number].item.index,
            )
            self.queue.fail(entries[number].call_id, error)
