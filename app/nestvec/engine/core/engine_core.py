"""The core: `await submit(submission)` gives raw pooled vectors. Puts queue, workers and failure policy together.

Workers pull: each takes the next micro-batch from the queue the moment it is free, so a busy event loop never leaves
the device idle. One more worker, the priority worker, runs interactive items that are not long, while the others are
all busy and bulk or long texts hold some of them: on purpose one thread more than cores, so that queries need not wait.

Read in this order: `work_queue` (admit, take, deliver, end), `worker` (take, run, deliver), `failures`,
`batch_reporter`; then the pure parts: `batching_policy`, `dispatcher`, `scheduler`, `fair_queue`, `admission` (with
`drain_rate`, `arrival_rates`, `forecast_error`, `shared_cores`, `retry_times`), `budget`, `cost_model`, `collate`,
`batch_runner`.
Every future resolves, also on failure, cancellation and close.
"""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Final

from nestvec.engine.backend import Backend, BackendInfo
from nestvec.engine.core.batch_reporter import BatchReporter
from nestvec.engine.core.batching.batching_policy import BatchingOptions, BatchingPolicy
from nestvec.engine.core.batching.shared_cores import SharedCores
from nestvec.engine.core.failures import FailurePolicy
from nestvec.engine.core.ports import CoreHealth, CrashGuard, NullCrashGuard
from nestvec.engine.core.work_queue import WorkQueue
from nestvec.engine.core.worker import Worker
from nestvec.engine.observer import Observer
from nestvec.engine.results import RawVectors
from nestvec.engine.types import ItemOptions, Submission
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import NotReadyError

LATE_TIMES: Final = 10.0  # a batch that takes so many times as long as predicted hangs
# Overdue by so much: the device is gone, and whoever looks after the process must end it.
LOST_S: Final = 1e9


@dataclass(frozen=True, slots=True)
class CoreOptions:
    """How a core runs.

    Attributes:
        batching: How work is queued and batched; what the backend bounds is added to it.
        pooler: What is made of token states.
    """

    batching: BatchingOptions
    pooler: Pooler


@dataclass(slots=True)
class EngineCore:
    """Queue and workers of one model.

    Attributes:
        model: Name for the observer.
        backend: What runs the batches; the core closes it.
        options: How the core runs.
        observer: Told what happens.
        clock: Monotonic seconds.
        crash_guard: Told what runs, where that outlives the process.
        cores: The models whose workers share cores with this one's.
        queue: What waits, and who waits for it.
        workers: Its threads, once it is started; the priority worker is the last one.
    """

    model: str
    backend: Backend
    options: CoreOptions
    observer: Observer
    clock: Callable[[], float] = time.monotonic
    crash_guard: CrashGuard = field(default_factory=NullCrashGuard)
    cores: SharedCores = field(default_factory=SharedCores)
    queue: WorkQueue = field(init=False)
    workers: list[Worker] = field(default_factory=list)
    _failures: FailurePolicy = field(init=False)

    def __post_init__(self) -> None:
        """Make the queue; no thread starts before `start`."""
        policy = BatchingPolicy.of(self.backend.cost, self._batching(), self.cores)
        self.queue = WorkQueue(self.model, self.observer, policy, self.clock)
        self._failures = FailurePolicy(
            self.model, self.backend, self.queue, self.observer, self.crash_guard
        )

    @property
    def pooler(self) -> Pooler:
        """What is made of token states."""
        return self.options.pooler

    @property
    def backend_info(self) -> BackendInfo:
        """What the backend is and gives."""
        return self.backend.info

    @property
    def max_batch_tokens(self) -> int:
        """Budget of a micro-batch in token equivalents."""
        return self.options.batching.max_batch_tokens

    def start(self) -> None:
        """Start the worker threads."""
        names = [f"nestvec-worker-{number}" for number in range(self.options.batching.workers)]
        self.workers = [self._worker(name) for name in names]
        self.workers.append(self._worker("nestvec-worker-priority", is_priority=True))
        for worker in self.workers:
            worker.start()

    def expecting(self, tokens: int, options: ItemOptions) -> AbstractContextManager[None]:
        """Refuse what `submit` would refuse, and count the call's tokens as waiting while the block runs.

        Raises:
            QueueFullError: There is no room for so many tokens of the key, or the wait would be too long.
        """
        return self.queue.expecting(tokens, options)

    async def submit(self, submission: Submission) -> RawVectors:
        """Run the items of a call and wait for all their vectors.

        Cancelling the task drops what still waits in the queue.

        Raises:
            QueueFullError: The call would pass the queue's bound, wait too long, or be late for its deadline.
            DeadlineError: The deadline passed while an item waited.
            BackendError: The runtime failed on an item; `input_index` names it.
            MemoryShortError: An item did not fit into memory, even alone.
            DegenerateVectorError: An item's vector was NaN, infinite or zero.
            QuarantinedError: An item ended the engine process before.
            NotReadyError: The core is closed.
        """
        alone = self.crash_guard.check(submission)
        call = self.queue.add(submission, alone)
        try:
            return await call.future
        except asyncio.CancelledError:
            self.queue.forget(call.call_id, "cancelled")
            raise

    def health(self, now_s: float, batch_timeout_s: float) -> CoreHealth:
        """Return how the core is; may be called from any thread.

        Args:
            now_s: Time by the core's clock.
            batch_timeout_s: How long any batch may take; one known to be long may take ten times its prediction.
        """
        running = [batch for worker in self.workers if (batch := worker.running) is not None]
        overdue = [
            now_s - begun_s - max(batch_timeout_s, LATE_TIMES * self.queue.predicted_s(entries))
            for begun_s, entries in running
        ]
        waiting_tokens, token_s = self.queue.load()
        return CoreHealth(
            LOST_S if self._failures.is_lost else max([0.0, *overdue]),
            waiting_tokens,
            token_s or 0.0,
            self.options.batching.max_queue_tokens,
        )

    def close(self) -> None:
        """Stop the workers after their running batches; whatever waits fails with NotReadyError."""
        self.queue.close()
        for worker in self.workers:
            worker.join()
        self.queue.fail_all(NotReadyError("the server is shutting down"))
        self.backend.close()

    def _batching(self) -> BatchingOptions:
        """Return how work is queued and batched, within what the backend takes."""
        info = self.backend.info
        mixed_tokens = info.max_mixed_tokens
        return replace(
            self.options.batching,
            max_cost=info.max_cost,
            max_mixed_tokens=math.inf if mixed_tokens is None else mixed_tokens,
        )

    def _worker(self, name: str, *, is_priority: bool = False) -> Worker:
        reporter = BatchReporter(self.model, self.queue, self.observer, self.clock)
        return Worker(
            name,
            self.backend,
            self.options.pooler,
            self.queue,
            self._failures,
            reporter,
            self.crash_guard.slot(),
            self.clock,
            is_priority,
        )
