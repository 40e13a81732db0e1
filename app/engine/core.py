"""The core: `await submit(items)` gives raw pooled vectors. Owns the queue and the worker threads.

Workers pull: each takes the next micro-batch from the scheduler the moment it is free, so a busy event loop
never leaves the device idle. One more worker, the express, runs interactive batches while the others are all
busy and bulk holds some of them: on purpose one thread more than cores, so that a query need not wait behind a
bulk batch.

A failing batch is split until the culprit stands alone; neighbours get their vectors. Every future resolves,
also on failure, cancellation and close.
"""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from app.engine.backend import Backend
from app.engine.cost_model import OnlineCostModel
from app.engine.fair_queue import Entry
from app.engine.forward import Parts, run_items
from app.engine.outputs import Outputs
from app.engine.pending import PendingCall, RawVectors, as_item_error
from app.engine.scheduler import Micro, Scheduler
from app.engine.types import BatchStats, Item, Observer, Priority
from app.errors import (
    DeadlineError,
    DegenerateVectorError,
    NestvecError,
    NotReadyError,
    QueueFullError,
)

MAX_RETRY_AFTER_S = 120.0  # above this, openai-python does not retry at all (api-contract 1.9)
LEAST_BATCH_TOKENS = 64  # the time cap never cuts batches below this


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
        clock: Monotonic seconds.
    """

    model: str
    backend: Backend
    options: CoreOptions
    observer: Observer
    clock: Callable[[], float] = time.monotonic
    _scheduler: Scheduler = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _wake: threading.Condition = field(init=False)
    _wake_express: threading.Condition = field(init=False)
    _calls: dict[int, PendingCall] = field(default_factory=dict)
    _ids: "itertools.count[int]" = field(default_factory=itertools.count)
    _threads: list[threading.Thread] = field(default_factory=list)
    _is_closed: bool = False
    _busy: int = 0  # workers that run a batch, the express apart
    _busy_with_bulk: int = 0
    _cost_model: OnlineCostModel = field(default_factory=OnlineCostModel)

    def __post_init__(self) -> None:
        """Make the queue; no thread starts before `start`."""
        self._wake = threading.Condition(self._lock)
        self._wake_express = threading.Condition(self._lock)
        self._scheduler = Scheduler(
            self.backend.cost, self.options.max_batch_tokens, self.options.lookahead_items
        )

    def start(self) -> None:
        """Start the worker threads."""
        for number in range(self.options.workers):
            thread = threading.Thread(
                target=self._work, name=f"nestvec-worker-{number}", daemon=True
            )
            self._threads.append(thread)
        express = threading.Thread(
            target=self._work_express, name="nestvec-worker-express", daemon=True
        )
        self._threads.append(express)
        for thread in self._threads:
            thread.start()

    async def submit(self, items: Sequence[Item]) -> RawVectors:
        """Run items and wait for all their vectors.

        Cancelling the task drops what still waits in the queue.

        Args:
            items: At least one.

        Raises:
            QueueFullError: Admission would pass the queue's bound.
            DeadlineError: An item's deadline passed while it waited.
            BackendError: The runtime failed on an item; `input_index` names it.
            DegenerateVectorError: An item's vector was NaN, infinite or zero.
            NotReadyError: The core is closed.
        """
        now = self.clock()
        call = PendingCall.begin(items, now)
        call_id = next(self._ids)
        with self._lock:
            self._admit(items)
            self._calls[call_id] = call
            self._scheduler.add(call_id, items, now)
            self._report_queue()
            self._wake.notify(min(len(items), self.options.workers))
            self._wake_express.notify()
        try:
            return await call.future
        except asyncio.CancelledError:
            self._forget(call_id, "cancelled")
            raise

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

    def _admit(self, items: Sequence[Item]) -> None:
        """Refuse what would pass the bound; an empty queue takes any call."""
        if self._is_closed:
            raise NotReadyError("the server is shutting down")
        waiting = self._scheduler.waiting_tokens
        asked = sum(item.tokens for item in items)
        if waiting and waiting + asked > self.options.max_queue_tokens:
            self.observer.items_dropped(self.model, items=len(items), reason="queue_full")
            raise QueueFullError(
                f"The queue holds {waiting} tokens of at most {self.options.max_queue_tokens}; "
                f"these inputs need {asked} more. Retry later or send fewer inputs.",
                retry_after_s=self._retry_after_s(waiting),
            )

    def _retry_after_s(self, waiting_tokens: int) -> float:
        """Time to drain half the queue as predicted, jittered so that clients do not return as one."""
        token_s = self._cost_model.seconds_per_token(self._scheduler.budget)
        if token_s is None:
            return 1.0
        drain_s = waiting_tokens * token_s / self.options.workers / 2
        jittered = drain_s * random.uniform(0.75, 1.25)  # noqa: S311 - spreads retries, no secret
        return min(max(jittered, 1.0), MAX_RETRY_AFTER_S)

    def _report_queue(self) -> None:
        self.observer.queue_changed(
            self.model, items=self._scheduler.waiting_items, tokens=self._scheduler.waiting_tokens
        )

    def _work(self) -> None:
        """Life of a worker thread: take a batch, run it, deliver it."""
        while True:
            with self._lock:
                while not self._is_closed and not self._scheduler.waiting_items:
                    self._wake.wait()
                if self._is_closed:
                    return
                idle = self.options.workers - self._busy
                micro = self._scheduler.next_batch(self.clock(), idle_workers=idle)
                is_bulk = micro.priority is Priority.BULK
                self._busy += 1
                self._busy_with_bulk += is_bulk
                is_lone = (
                    self._busy == 1
                    and len(micro.entries) == 1
                    and not self._scheduler.waiting_items
                )
                if self._is_express_due():
                    self._wake_express.notify()
                self._report_queue()
            self._run_safely(micro, is_lone=is_lone)
            with self._lock:
                self._busy -= 1
                self._busy_with_bulk -= is_bulk

    def _work_express(self) -> None:
        """Life of the extra worker: interactive batches only, and only while bulk stands in their way."""
        while True:
            with self._lock:
                while not self._is_closed and not self._is_express_due():
                    self._wake_express.wait()
                if self._is_closed:
                    return
                micro = self._scheduler.next_batch(self.clock(), only=Priority.INTERACTIVE)
                self._report_queue()
            self._run_safely(micro)

    def _is_express_due(self) -> bool:
        return (
            self._busy >= self.options.workers
            and self._busy_with_bulk > 0
            and self._scheduler.waiting_of(Priority.INTERACTIVE) > 0
        )

    def _run_safely(self, micro: Micro, *, is_lone: bool = False) -> None:
        """Run a batch; a fault of ours fails its calls and never ends the worker."""
        try:
            for entry in micro.expired:
                late = DeadlineError("The deadline passed in the queue.")
                self._fail(entry.call_id, late, "deadline")
            if micro.entries:
                self._run(micro.entries, is_lone=is_lone)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next batch must run
            for entry in micro.entries:
                self._fail(entry.call_id, as_item_error(error, entry.item), "failed")

    def _run(self, entries: Sequence[Entry], *, is_lone: bool = False) -> None:
        """Run one micro-batch; on failure split it, so that only the culprit fails."""
        started = self.clock()
        items = [entry.item for entry in entries]
        try:
            parts = run_items(self.backend, items, self.options.outputs, is_lone=is_lone)
        except Exception as error:  # noqa: BLE001 - a batch loop must outlive whatever a batch does
            self._report_batch(entries, started, "error")
            if len(entries) > 1:
                middle = len(entries) // 2
                self._run(entries[:middle])
                self._run(entries[middle:])
            else:
                self._fail(entries[0].call_id, as_item_error(error, items[0]), "failed")
            return
        self._report_batch(entries, started, "ok")
        self._deliver(entries, parts, started)

    def _report_batch(self, entries: Sequence[Entry], started: float, outcome: str) -> None:
        took = self.clock() - started
        lengths = [entry.item.tokens for entry in entries]
        tokens = sum(lengths)
        depth, area = entries[0].item.depth, len(lengths) * max(lengths) ** 2
        error = self._learn(tokens * depth, area * depth, took) if outcome == "ok" else None
        stats = BatchStats(
            items=len(entries),
            tokens=tokens,
            padded_tokens=len(entries) * max(lengths),
            waits_s=tuple(max(0.0, started - entry.arrived_s) for entry in entries),
            engine_s=took,
            outcome=outcome,
            prediction_error=error,
        )
        self.observer.batch_done(self.model, stats)

    def _learn(self, tokens: float, area: float, took_s: float) -> float | None:
        """Teach the cost model, and cut the budget where batches would take too long; gives its error."""
        with self._lock:
            error = self._cost_model.observe(tokens=tokens, area=area, took_s=took_s)
            token_s = self._cost_model.seconds_per_token(self.options.max_batch_tokens)
            if token_s:
                within_s = max(LEAST_BATCH_TOKENS, self.options.max_batch_s / token_s)
                self._scheduler.budget = min(self.options.max_batch_tokens, within_s)
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
            self._scheduler.drop(call_id)
            self._report_queue()
        self.observer.items_dropped(self.model, items=len(call.parts), reason=reason)
        return call

    def _fail(self, call_id: int, error: NestvecError, reason: str) -> None:
        """End a call with an error; its other items leave the queue."""
        call = self._forget(call_id, reason)
        if call is not None:
            call.resolve(error)
