"""The core's shared state behind one lock: what waits, who waits for it, and how large batches may be.

The pure parts decide (`batching_policy` puts them together); this file adds the lock, the workers'
wake-ups and the calls that are under way. Every call that was admitted ends exactly once: with its vectors, an error,
or because nobody waits for it any more.
"""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from nestvec.engine.core.batch_runner import BatchOutput
from nestvec.engine.core.batching.admission import Admission
from nestvec.engine.core.batching.batching_policy import BatchingPolicy
from nestvec.engine.core.batching.dispatcher import Assignment, Dispatcher
from nestvec.engine.core.batching.fair_queue import Entry
from nestvec.engine.core.pending_call import PendingCall
from nestvec.engine.observer import Observer
from nestvec.engine.types import ItemOptions, Priority, Submission
from nestvec.errors import NestvecError, NotReadyError, QueueFullError


@dataclass(slots=True)
class WorkQueue:
    """Calls and items of one model; its methods may be called from any thread.

    Attributes:
        model: Name for the observer.
        observer: Told when the queue changes and when items are dropped.
        policy: Decides who may join, what runs next, and how large batches may be.
        clock: Monotonic seconds.
        dispatcher: Where items wait, and which worker is busy; the policy's.
        admission: Who may join; the policy's.
    """

    model: str
    observer: Observer
    policy: BatchingPolicy
    clock: Callable[[], float]
    dispatcher: Dispatcher = field(init=False)
    admission: Admission = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _wake: threading.Condition = field(init=False)
    _wake_priority: threading.Condition = field(init=False)
    _calls: dict[int, PendingCall] = field(default_factory=dict)
    _ids: "itertools.count[int]" = field(default_factory=itertools.count)
    _is_closed: bool = False

    def __post_init__(self) -> None:
        """Make the conditions that workers wait for, over the one lock."""
        self.dispatcher, self.admission = self.policy.dispatcher, self.policy.admission
        self._wake = threading.Condition(self._lock)
        self._wake_priority = threading.Condition(self._lock)

    @contextmanager
    def expecting(self, tokens: int, options: ItemOptions) -> Iterator[None]:
        """Refuse what `add` would refuse, and count the call's tokens as waiting while the block runs.

        Raises:
            QueueFullError: The call would pass the queue's bound, or wait too long.
        """
        with self._lock:
            try:
                self.admission.check_early(tokens, options, self.clock())
            except QueueFullError as error:
                self.observer.call_refused(self.model, error.reason)
                raise
            self.admission.expect(tokens, options)
        try:
            yield
        finally:
            with self._lock:
                self.admission.expect(-tokens, options)

    def add(self, submission: Submission, alone: Sequence[bool]) -> PendingCall:
        """Admit a call, queue its items and wake workers; runs on the caller's event loop.

        Args:
            submission: The call.
            alone: For each item whether it must run alone.

        Raises:
            QueueFullError: The call would pass the queue's bound, wait too long, or be late for its deadline.
            NotReadyError: The queue is closed.
        """
        now_s = self.clock()
        items = len(submission.items)
        call = PendingCall.begin(next(self._ids), items, now_s)
        with self._lock:
            call.predicted_s = self._admit(submission, now_s)
            call.priority = submission.options.priority
            self._calls[call.call_id] = call
            self.dispatcher.add(call.call_id, submission, now_s, alone)
            self._report()
            self._wake.notify(min(items, self.dispatcher.workers))
            if self.dispatcher.is_priority_due:
                self._wake_priority.notify()
        return call

    def take(self, *, is_priority: bool) -> Assignment | None:
        """Wait for work and take it; None once the queue is closed.

        Args:
            is_priority: Whether the priority worker asks.
        """
        wake = self._wake_priority if is_priority else self._wake
        with self._lock:
            while not self._is_closed and not self.dispatcher.has_work(is_priority=is_priority):
                wake.wait()
            if self._is_closed:
                return None
            assignment = self.dispatcher.take(self.clock(), is_priority=is_priority)
            self.admission.share.busy = self.dispatcher.busy
            if self.dispatcher.is_priority_due:
                self._wake_priority.notify()
            self._report()
        return assignment

    def done(self, assignment: Assignment) -> None:
        """Note that a worker is free again, and wake others where they may go on."""
        with self._lock:
            self.dispatcher.done(assignment)
            self.policy.learn_turn(assignment, self.clock())
            self.admission.share.busy = self.dispatcher.busy
            if assignment.is_isolated or self.dispatcher.has_isolated:
                self._wake.notify_all()
                self._wake_priority.notify()

    def isolate(self, entry: Entry) -> None:
        """Queue an entry again, to run alone, if its call still waits for it."""
        with self._lock:
            if entry.call_id in self._calls:
                self.dispatcher.isolate(entry)
                self._wake.notify_all()

    def put(
        self, entries: Sequence[Entry], output: BatchOutput, started_s: float
    ) -> list[PendingCall]:
        """Put usable rows into their calls, and return the calls that are complete with them.

        Args:
            entries: What ran.
            output: What each entry gave; degenerate rows are left out.
            started_s: Monotonic time when the batch began.
        """
        is_degenerate = output.is_degenerate.tolist()
        complete: list[PendingCall] = []
        with self._lock:
            for number, entry in enumerate(entries):
                call = self._calls.get(entry.call_id)
                if call is None or is_degenerate[number]:
                    continue
                wait_s = started_s - entry.arrived_s
                if call.put(entry.position, output.rows[number], wait_s=wait_s):
                    del self._calls[entry.call_id]
                    complete.append(call)
            self._learn_waits(complete)
        return complete

    def forget(self, call_id: int, reason: str) -> PendingCall | None:
        """Take a call and its waiting items out, and return it; None if it had ended."""
        with self._lock:
            call = self._calls.pop(call_id, None)
            if call is None:
                return None
            self.dispatcher.drop(call_id)
            self._report()
        self.observer.items_dropped(self.model, items=len(call.rows), reason=reason)
        return call

    def fail(self, call_id: int, error: NestvecError, reason: str = "failed") -> None:
        """End a call with an error, if it has not ended yet; its other items leave the queue."""
        call = self.forget(call_id, reason)
        if call is not None:
            call.resolve(error)

    def fail_all(self, error: NestvecError) -> None:
        """End every call with an error."""
        for call_id in list(self._calls):
            self.fail(call_id, error)

    def load(self) -> tuple[int, float | None]:
        """Return the tokens that wait, and the seconds that one takes, all workers together; None while unknown."""
        with self._lock:
            tokens, cost_s = self.dispatcher.waiting_tokens, self.admission.cost_s()
            if not tokens or cost_s is None:
                return tokens, cost_s
            return tokens, self.dispatcher.waiting_cost / tokens * cost_s

    def ages_s(self) -> dict[Priority, float]:
        """Return for each class how long its oldest item has waited; 0 where none waits."""
        now_s = self.clock()
        with self._lock:
            oldest = {priority: self.dispatcher.oldest_s(priority) for priority in Priority}
        return {
            priority: 0.0 if came_s is None else max(0.0, now_s - came_s)
            for priority, came_s in oldest.items()
        }

    def tokens_per_second(self) -> float | None:
        """Return how many tokens all workers together run in a second under full load; None while nothing is known."""
        with self._lock:
            tokens = self.admission.drain_rate.tokens_per_second
        return None if tokens is None else tokens * self.dispatcher.workers

    def predicted_s(self, entries: Sequence[Entry]) -> float:
        """Return how long a batch of these entries takes at most, as far as can be foreseen; 0: nothing is known."""
        return self.policy.predicted_s(entries)

    def learn(self, entries: Sequence[Entry], took_s: float) -> float | None:
        """Learn from a batch that ran.

        Returns:
            Relative error of the prediction for this batch; None where nothing was predicted.
        """
        with self._lock:
            return self.policy.learn_batch(entries, took_s)

    def memory_was_short(self, cost: float) -> None:
        """Give smaller batches for a while: one of this cost did not fit into memory."""
        with self._lock:
            self.policy.memory_was_short(cost)

    def close(self) -> None:
        """Admit nothing more, and let workers end after their running batches."""
        with self._lock:
            self._is_closed = True
            self.admission.leave()
            self._wake.notify_all()
            self._wake_priority.notify_all()

    def _admit(self, submission: Submission, now_s: float) -> float:
        """Return how long a call should take; 0 where nothing is foreseen."""
        if self._is_closed:
            raise NotReadyError("the server is shutting down")
        try:
            return self.admission.admit(submission, now_s)
        except QueueFullError as error:
            items = len(submission.items)
            self.observer.items_dropped(self.model, items=items, reason="queue_full")
            self.observer.call_refused(self.model, error.reason)
            raise

    def _learn_waits(self, complete: Sequence[PendingCall]) -> None:
        """Learn from calls that are done how good the forecasts for them were."""
        foreseen = [call for call in complete if call.predicted_s]
        now_s = self.clock() if foreseen else 0.0
        for call in foreseen:
            took_s = now_s - call.arrived_s
            error = self.admission.learn(call.priority, call.predicted_s, took_s)
            if error is not None:
                self.observer.wait_was_predicted(self.model, error)

    def _report(self) -> None:
        waiting_s = self.admission.waiting_s()
        self.admission.share.waiting_s = waiting_s
        self.observer.queue_changed(
            self.model,
            items=self.dispatcher.waiting_items,
            tokens=self.dispatcher.waiting_tokens,
            seconds=waiting_s,
        )
