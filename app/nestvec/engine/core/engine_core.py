"""The core: `await submit(items)` gives raw pooled vectors. Owns the queue and the worker threads.

Workers pull: each takes the next micro-batch from the desk the moment it is free, so a busy event loop never leaves the
device idle. One more worker, the express, runs interactive batches while the others are all busy and bulk holds some of
them: on purpose one thread more than cores, so that a query need not wait behind a bulk batch.

A failing batch is split until the culprit stands alone; neighbours get their vectors. Where memory was short batches
get smaller, and an item that did not fit runs again while nothing else does. Every future resolves, also on failure,
cancellation and close.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nestvec.engine.backend import Backend
from nestvec.engine.core.admission import Admission
from nestvec.engine.core.batch_runner import Parts, run_items
from nestvec.engine.core.budget import Budget
from nestvec.engine.core.cost_model import OnlineCostModel
from nestvec.engine.core.dispatcher import Desk, Task
from nestvec.engine.core.fair_queue import Entry
from nestvec.engine.core.pending_call import PendingCall, as_item_error
from nestvec.engine.core.ports import Lane, NullRecorder, Recorder, Traits, Vitals
from nestvec.engine.core.scheduler import Scheduler
from nestvec.engine.types import BatchStats, Item, Observer, RawVectors
from nestvec.engine.vectors.pooler import Outputs
from nestvec.errors import (
    BackendLostError,
    BackendMemoryError,
    DeadlineError,
    DegenerateVectorError,
    MemoryShortError,
    NestvecError,
    NotReadyError,
    QueueFullError,
)

LATE_TIMES = 10.0  # a batch that takes so many times as long as predicted hangs
LOST_S = (
    1e9  # overdue by so much: the device is gone, and whoever looks after the process must end it
)


@dataclass(frozen=True, slots=True)
class CoreOptions:
    """How the core runs.

    Attributes:
        workers: Threads that run batches; one a core on CPU.
        max_batch_tokens: Budget of a micro-batch in the backend's cost units (token equivalents).
        lookahead_items: How far the scheduler may look to sort by length.
        max_queue_tokens: Tokens that may wait before calls are refused.
        max_batch_s: Batches are cut so as not to take longer, once their cost is known.
        outputs: What is made of token states.
    """

    workers: int
    max_batch_tokens: int
    lookahead_items: int
    max_queue_tokens: int
    max_batch_s: float
    outputs: Outputs


@dataclass(slots=True)
class EngineCore:
    """Queue, scheduler and workers of one model.

    Attributes:
        model: Name for the observer.
        backend: What runs the batches; the core closes it.
        recorder: Told what runs, where that outlives the process.
        clock: Monotonic seconds.
    """

    model: str
    backend: Backend
    options: CoreOptions
    observer: Observer
    clock: Callable[[], float] = time.monotonic
    recorder: Recorder = field(default_factory=NullRecorder)
    admission: Admission = field(init=False)
    _desk: Desk = field(init=False)
    _budget: Budget = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _wake: threading.Condition = field(init=False)
    _wake_express: threading.Condition = field(init=False)
    _calls: dict[int, PendingCall] = field(default_factory=dict)
    _ids: "itertools.count[int]" = field(default_factory=itertools.count)
    _threads: list[threading.Thread] = field(default_factory=list)
    _running: dict[int, tuple[float, Sequence[Entry]]] = field(default_factory=dict)
    _is_closed: bool = False
    _is_lost: bool = False
    _cost_model: OnlineCostModel = field(default_factory=OnlineCostModel)

    def __post_init__(self) -> None:
        """Make the queue; no thread starts before `start`."""
        options = self.options
        self._wake = threading.Condition(self._lock)
        self._wake_express = threading.Condition(self._lock)
        self._budget = Budget(min(float(options.max_batch_tokens), self.backend.max_cost))
        scheduler = Scheduler(self.backend.cost, self._budget.now, options.lookahead_items)
        self._desk = Desk(scheduler, options.workers)
        self.admission = Admission(
            scheduler, self._cost_model, options.workers, options.max_queue_tokens
        )

    @property
    def outputs(self) -> Outputs:
        """What is made of token states."""
        return self.options.outputs

    @property
    def traits(self) -> Traits:
        """What runs the graph."""
        backend = self.backend
        return Traits(
            backend.provider,
            backend.hidden_size,
            backend.gives_tokens,
            backend.layers,
            self.options.max_batch_tokens,
        )

    def start(self) -> None:
        """Start the worker threads."""
        for number in range(self.options.workers):
            self._add_thread(f"nestvec-worker-{number}", is_express=False)
        self._add_thread("nestvec-worker-express", is_express=True)
        for thread in self._threads:
            thread.start()

    def check_room(self, tokens: int, key_id: str) -> None:
        """Refuse what `submit` would refuse for want of room.

        Raises:
            QueueFullError: There is none.
        """
        with self._lock:
            self.admission.check_room(self._desk.waiting_tokens, tokens, key_id)

    async def submit(self, items: Sequence[Item]) -> RawVectors:
        """Run items and wait for all their vectors.

        Cancelling the task drops what still waits in the queue.

        Args:
            items: At least one.

        Raises:
            QueueFullError: Admission would pass the queue's bound, or the wait the deadline.
            DeadlineError: An item's deadline passed while it waited.
            BackendError: The runtime failed on an item; `input_index` names it.
            MemoryShortError: An item did not fit into memory, even alone.
            DegenerateVectorError: An item's vector was NaN, infinite or zero.
            QuarantinedError: An item killed the engine before.
            NotReadyError: The core is closed.
        """
        alone = self.recorder.check(items)
        now = self.clock()
        call = PendingCall.begin(items, now)
        call_id = next(self._ids)
        with self._lock:
            self._admit(items, now)
            self._calls[call_id] = call
            self._desk.add(call_id, items, now, alone)
            self._report_queue()
            self._wake.notify(min(len(items), self.options.workers))
            self._wake_express.notify()
        try:
            return await call.future
        except asyncio.CancelledError:
            self._forget(call_id, "cancelled")
            raise

    def vitals(self, now_s: float, patience_s: float) -> Vitals:
        """How the core is; from any thread.

        Args:
            now_s: By the core's clock.
            patience_s: What any batch may take; one that is known to be long may take ten times as predicted.
        """
        overdue = [
            now_s - begun - max(patience_s, LATE_TIMES * self._predicted_s(entries))
            for begun, entries in list(self._running.values())
        ]
        with self._lock:
            waiting, token_s = self._desk.waiting_tokens, self.admission.token_s()
        return Vitals(
            LOST_S if self._is_lost else max([0.0, *overdue]),
            waiting,
            (token_s or 0.0) / self.options.workers,
            self.options.max_queue_tokens,
        )

    def _predicted_s(self, entries: Sequence[Entry]) -> float:
        tokens, area = _size(entries)
        return self._cost_model.predict(tokens=tokens, area=area) or 0.0

    def close(self) -> None:
        """Stop the workers after their running batches; whatever waits fails with NotReadyError."""
        with self._lock:
            self._is_closed = True
            self._wake.notify_all()
            self._wake_express.notify_all()
        for thread in self._threads:
            thread.join()
        for call_id in list(self._calls):
            self._fail(call_id, NotReadyError("the server is shutting down"), "failed")
        self.backend.close()

    def _admit(self, items: Sequence[Item], now: float) -> None:
        """Refuse what would pass a bound, or could not be done in time."""
        if self._is_closed:
            raise NotReadyError("the server is shutting down")
        first = items[0]  # those of a call differ in none of these
        asked = sum(item.tokens for item in items)
        try:
            self.admission.check_room(self._desk.waiting_tokens, asked, first.key_id)
            if first.deadline_s is not None:
                left_s = first.deadline_s - now
                self.admission.check_wait(asked, first.key_id, first.priority, left_s)
        except QueueFullError:
            self.observer.items_dropped(self.model, items=len(items), reason="queue_full")
            raise

    def _report_queue(self) -> None:
        self.observer.queue_changed(
            self.model, items=self._desk.waiting_items, tokens=self._desk.waiting_tokens
        )

    def _add_thread(self, name: str, *, is_express: bool) -> None:
        lane = self.recorder.lane()
        number = len(self._threads)
        thread = threading.Thread(
            target=lambda: self._work(lane, number, is_express=is_express), name=name, daemon=True
        )
        self._threads.append(thread)

    def _work(self, lane: Lane, number: int, *, is_express: bool) -> None:
        """Life of a worker thread: take a batch, run it, deliver it."""
        wake = self._wake_express if is_express else self._wake
        while True:
            with self._lock:
                while not self._is_closed and not self._desk.has_work(is_express=is_express):
                    wake.wait()
                if self._is_closed:
                    return
                task = self._desk.take(self.clock(), is_express=is_express)
                if self._desk.is_express_due:
                    self._wake_express.notify()
                self._report_queue()
            self._run_safely(task, lane, number)
            with self._lock:
                self._desk.done(task)
                if task.is_isolated or self._desk.has_isolated:
                    self._wake.notify_all()
                    self._wake_express.notify()

    def _run_safely(self, task: Task, lane: Lane, number: int) -> None:
        """Run a batch; a fault of ours fails its calls and never ends the worker."""
        entries = task.micro.entries
        try:
            for entry in task.micro.expired:
                late = DeadlineError("The deadline passed in the queue.")
                self._fail(entry.call_id, late, "deadline")
            if entries:
                lane.begin([entry.item for entry in entries])
                self._running[number] = self.clock(), entries
                self._run(entries, task)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next batch must run
            for entry in entries:
                self._fail(entry.call_id, as_item_error(error, entry.item), "failed")
        finally:
            self._running.pop(number, None)
            lane.end()

    def _run(self, entries: Sequence[Entry], task: Task) -> None:
        """Run one micro-batch; on failure split it, so that only the culprit fails."""
        started = self.clock()
        items = [entry.item for entry in entries]
        try:
            parts = run_items(self.backend, items, self.options.outputs, is_lone=task.is_lone)
        except Exception as error:  # noqa: BLE001 - a batch loop must outlive whatever a batch does
            self._report_batch(entries, started, "error")
            if isinstance(error, BackendLostError):
                self._give_up(entries)
                return
            is_memory = isinstance(error, BackendMemoryError | MemoryError)
            if is_memory:
                self._shrink(items)
            if len(entries) > 1:
                middle = len(entries) // 2
                self._run(entries[:middle], Task(task.micro))
                self._run(entries[middle:], Task(task.micro))
            elif is_memory:
                self._try_alone(entries[0], task)
            else:
                self._fail(entries[0].call_id, as_item_error(error, items[0]), "failed")
            return
        self._report_batch(entries, started, "ok")
        self._deliver(entries, parts, started)
        if task.is_isolated:
            self.recorder.clear(items[0])

    def _give_up(self, entries: Sequence[Entry]) -> None:
        """The device is gone: only a new process can go on. Where one will come, it gets these items too."""
        self._is_lost = True
        self.recorder.await_end()
        for entry in entries:
            message = "The GPU was lost; the engine is being restarted."
            self._fail(entry.call_id, NotReadyError(message, retry_after_s=5.0), "failed")

    def _shrink(self, items: Sequence[Item]) -> None:
        """Memory was short: smaller batches from now on, for a while."""
        lengths = np.fromiter((item.tokens for item in items), np.int64, len(items))
        with self._lock:
            self._budget.memory_was_short(self.backend.cost(lengths))
            self._desk.scheduler.budget = self._budget.now
        self.observer.memory_was_short(self.model)

    def _try_alone(self, entry: Entry, task: Task) -> None:
        """An item for which memory was short runs once more, when nothing else does."""
        if task.is_isolated:
            message = "The server has not enough memory for this input just now."
            self._fail(entry.call_id, MemoryShortError(message, retry_after_s=5.0), "failed")
            return
        with self._lock:
            if entry.call_id in self._calls:
                self._desk.isolate(entry)
                self._wake.notify_all()

    def _report_batch(self, entries: Sequence[Entry], started: float, outcome: str) -> None:
        took = self.clock() - started
        lengths = [entry.item.tokens for entry in entries]
        error = self._learn(entries, took) if outcome == "ok" else None
        stats = BatchStats(
            items=len(entries),
            tokens=sum(lengths),
            padded_tokens=len(entries) * max(lengths),
            waits_s=tuple(max(0.0, started - entry.arrived_s) for entry in entries),
            engine_s=took,
            outcome=outcome,
            prediction_error=error,
        )
        self.observer.batch_done(self.model, stats)

    def _learn(self, entries: Sequence[Entry], took_s: float) -> float | None:
        """Teach the cost model, and cut the budget where batches would take too long; gives its error."""
        tokens, area = _size(entries)
        with self._lock:
            error = self._cost_model.observe(tokens=tokens, area=area, took_s=took_s)
            token_s = self._cost_model.seconds_per_token(self.options.max_batch_tokens)
            if token_s:
                self._budget.within_time = self.options.max_batch_s / token_s
            self._budget.ran()
            self._desk.scheduler.budget = self._budget.now
        return error

    def _deliver(self, entries: Sequence[Entry], parts: Parts, started: float) -> None:
        """Put what each item gave in its call's place; finished calls wake their waiters."""
        bad = parts.is_degenerate.tolist()
        done: list[PendingCall] = []
        with self._lock:
            for number, entry in enumerate(entries):
                call = self._calls.get(entry.call_id)
                if call is None or bad[number]:
                    continue
                wait_s = started - entry.arrived_s
                if call.put(entry.position, parts.rows[number], wait_s=wait_s):
                    del self._calls[entry.call_id]
                    done.append(call)
        now = self.clock()
        for call in done:
            call.finish(now)
        for number in np.flatnonzero(parts.is_degenerate).tolist():
            error = DegenerateVectorError(
                "The model gave no usable vector (NaN, infinity or all zeros) for this input.",
                input_index=entries[number].item.index,
            )
            self._fail(entries[number].call_id, error, "failed")

    def _forget(self, call_id: int, reason: str) -> PendingCall | None:
        """Take a call and its waiting items out; None if it had ended."""
        with self._lock:
            call = self._calls.pop(call_id, None)
            if call is None:
                return None
            self._desk.drop(call_id)
            self._report_queue()
        self.observer.items_dropped(self.model, items=len(call.parts), reason=reason)
        return call

    def _fail(self, call_id: int, error: NestvecError, reason: str) -> None:
        """End a call with an error; its other items leave the queue."""
        call = self._forget(call_id, reason)
        if call is not None:
            call.resolve(error)


def _size(entries: Sequence[Entry]) -> tuple[float, float]:
    """Tokens and attention area of a batch, as far as it goes through the layers."""
    lengths = [entry.item.tokens for entry in entries]
    depth = entries[0].item.depth
    return sum(lengths) * depth, len(lengths) * max(lengths) ** 2 * depth
