"""Which worker takes what, and when: pure, no thread, no clock of its own. The core calls it under its lock.

Beside the scheduler's queue there is a short one of items that must run alone: suspects of a crash, and items for which
memory was short. One of them runs while nothing else does, and they go first, so that the others wait shortly.

The priority worker takes interactive items while all workers are busy and some run what queries should not wait for: a
bulk batch, or a text so long that it holds its worker for many times as long as a batch may. It passes over the long
items that wait, so that it is soon free for the next query, and takes short ones before those that are neither.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from nestvec.engine.core.batching.fair_queue import Entry
from nestvec.engine.core.batching.scheduler import MicroBatch, Scheduler
from nestvec.engine.types import Priority, Submission


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """A micro-batch that a worker has taken.

    Attributes:
        batch: The entries to run, and those that expired.
        is_lone: Whether nothing else runs or waits.
        is_isolated: Whether nothing else may run meanwhile.
        is_priority: Whether the priority worker has taken it.
        taken_s: Monotonic time when it was taken.
        is_full_load: Whether all workers were busy from then on, the priority worker not counted.
        is_long: Whether it holds its worker for many times as long as a batch may take.
    """

    batch: MicroBatch
    is_lone: bool = False
    is_isolated: bool = False
    is_priority: bool = False
    taken_s: float = 0.0
    is_full_load: bool = False
    is_long: bool = False


@dataclass(slots=True)
class Dispatcher:
    """Hands micro-batches to workers, and knows who is busy with what.

    Attributes:
        scheduler: Where items wait.
        workers: Number of workers, the priority worker not counted.
        running_cost: What the batches cost that run, long ones not counted.
        long: The long batches that run.
    """

    scheduler: Scheduler
    workers: int
    running_cost: float = 0.0
    long: list[Assignment] = field(default_factory=list)
    _isolated: deque[Entry] = field(default_factory=deque)
    _busy: int = 0
    _busy_with_bulk: int = 0
    _is_priority_busy: bool = False
    _is_isolating: bool = False

    @property
    def waiting_items(self) -> int:
        """Number of items that wait."""
        return self.scheduler.waiting_items + len(self._isolated)

    @property
    def waiting_tokens(self) -> int:
        """Number of tokens that wait."""
        waiting = self.scheduler.waiting_tokens
        return waiting + sum(e.item.tokens for e in self._isolated) if self._isolated else waiting

    @property
    def waiting_cost(self) -> float:
        """What the items cost that wait, each alone, in token equivalents."""
        waiting = self.scheduler.waiting_cost
        return waiting + sum(map(self._cost_of, self._isolated)) if self._isolated else waiting

    def oldest_s(self, priority: Priority) -> float | None:
        """Return when the item of a class came that has waited longest; None where none waits."""
        waiting = [e.arrived_s for e in self._isolated if e.options.priority is priority]
        if (queued_s := self.scheduler.oldest_s(priority)) is not None:
            waiting.append(queued_s)
        return min(waiting, default=None)

    @property
    def busy(self) -> int:
        """Number of workers that run a batch, the priority worker counted."""
        return self._busy + self._is_priority_busy

    @property
    def is_priority_busy(self) -> bool:
        """Whether the priority worker runs a batch."""
        return self._is_priority_busy

    @property
    def has_isolated(self) -> bool:
        """Whether an item waits to run alone."""
        return bool(self._isolated)

    def add(
        self, call_id: int, submission: Submission, now_s: float, alone: Sequence[bool] = ()
    ) -> None:
        """Queue the items of a call.

        Args:
            call_id: The call's number, by which it can be dropped.
            submission: The call.
            now_s: Monotonic time.
            alone: For each item whether it must run alone; none by default.
        """
        if not any(alone):
            self.scheduler.add(call_id, submission, now_s)
            return
        for position, (item, is_alone) in enumerate(zip(submission.items, alone, strict=True)):
            entry = Entry(item, submission.options, call_id, position, now_s)
            if is_alone:
                self._isolated.append(entry)
            else:
                self.scheduler.add_entry(entry)

    def isolate(self, entry: Entry) -> None:
        """Queue an entry again, to run alone."""
        self._isolated.append(entry)

    def drop(self, call_id: int) -> None:
        """Remove what still waits of a call."""
        self.scheduler.drop(call_id)
        if any(entry.call_id == call_id for entry in self._isolated):
            self._isolated = deque(e for e in self._isolated if e.call_id != call_id)

    def has_work(self, *, is_priority: bool = False) -> bool:
        """Return whether a worker, or the priority worker, may take something now."""
        if self._is_isolating:
            return False
        if self._isolated:
            return not is_priority and not self._busy and not self._is_priority_busy
        if is_priority:
            return self.is_priority_due
        return self.scheduler.waiting_items > 0

    @property
    def is_priority_due(self) -> bool:
        """Whether interactive items that are not long wait while bulk batches or long ones stand in their way."""
        return (
            self._busy >= self.workers
            and (self._busy_with_bulk > 0 or bool(self.long))
            and not self._isolated
            and self.scheduler.shortest_tokens(Priority.INTERACTIVE)
            <= self.scheduler.passing_tokens[1]
        )

    def take(self, now_s: float, *, is_priority: bool = False) -> Assignment:
        """Give a worker its next batch; `has_work` must have said that there is one."""
        if is_priority:
            self._is_priority_busy = True
            short_tokens, tokens = self.scheduler.passing_tokens
            has_short = self.scheduler.shortest_tokens(Priority.INTERACTIVE) <= short_tokens
            batch = self.scheduler.next_batch(
                now_s,
                only=Priority.INTERACTIVE,
                max_tokens=short_tokens if has_short else tokens,
            )
            return self._begun(Assignment(batch, is_priority=True, taken_s=now_s))
        if self._isolated:
            return self._take_isolated(now_s)
        batch = self.scheduler.next_batch(now_s, idle_workers=self.workers - self._busy)
        self._busy += 1
        self._busy_with_bulk += batch.priority is Priority.BULK
        is_lone = self._busy == 1 and len(batch.entries) == 1 and not self.scheduler.waiting_items
        is_full = self._busy >= self.workers
        is_long = batch.cost > self.scheduler.long_cost
        return self._begun(
            Assignment(batch, is_lone, taken_s=now_s, is_full_load=is_full, is_long=is_long)
        )

    def done(self, assignment: Assignment) -> None:
        """Note that a worker has finished its batch."""
        if assignment.is_long:
            self.long.remove(assignment)
        else:
            self.running_cost -= assignment.batch.cost
        if assignment.is_priority:
            self._is_priority_busy = False
            return
        self._busy -= 1
        if not self.busy:
            self.running_cost = 0.0  # sums of floats drift
        if assignment.is_isolated:
            self._is_isolating = False
        else:
            self._busy_with_bulk -= assignment.batch.priority is Priority.BULK

    def _take_isolated(self, now_s: float) -> Assignment:
        entry = self._isolated.popleft()
        self._busy += 1
        self._is_isolating = True
        deadline_s = entry.options.deadline_s
        is_late = deadline_s is not None and deadline_s <= now_s
        batch = MicroBatch((entry,), tokens=entry.item.tokens, cost=self._cost_of(entry))
        if is_late:
            batch = MicroBatch(expired=(entry,))
        return self._begun(Assignment(batch, is_isolated=True, taken_s=now_s))

    def _begun(self, assignment: Assignment) -> Assignment:
        """Count a batch as running."""
        if assignment.is_long:
            self.long.append(assignment)
        else:
            self.running_cost += assignment.batch.cost
        return assignment

    def _cost_of(self, entry: Entry) -> float:
        """Return what an item costs alone."""
        return self.scheduler.cost_alone(entry.item.tokens) * entry.options.layer_share
