"""Which worker takes what, and when: pure, no thread, no clock of its own. A core calls it under its lock.

Beside the scheduler's queue there is a short one of items that must run alone: suspects of a crash, and items for which
memory was short. One of them runs while nothing else does, and they go first, so that the others wait shortly.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from nestvec.engine.core.fair_queue import Entry
from nestvec.engine.core.scheduler import Micro, Scheduler
from nestvec.engine.types import Item, Priority


@dataclass(frozen=True, slots=True)
class Task:
    """A micro-batch that a worker has taken.

    Attributes:
        is_lone: Nothing else runs or waits.
        is_isolated: Nothing else may run meanwhile.
        is_express: The extra worker has it.
    """

    micro: Micro
    is_lone: bool = False
    is_isolated: bool = False
    is_express: bool = False


@dataclass(slots=True)
class Desk:
    """The state of a core's work.

    Attributes:
        scheduler: Where items wait.
        workers: How many there are, the express apart.
    """

    scheduler: Scheduler
    workers: int
    _isolated: deque[Entry] = field(default_factory=deque)
    _busy: int = 0
    _busy_with_bulk: int = 0
    _is_express_busy: bool = False
    _is_isolating: bool = False

    @property
    def waiting_items(self) -> int:
        """Items that wait."""
        return self.scheduler.waiting_items + len(self._isolated)

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait."""
        waiting = self.scheduler.waiting_tokens
        return waiting + sum(e.item.tokens for e in self._isolated) if self._isolated else waiting

    @property
    def has_isolated(self) -> bool:
        """Whether an item waits to run alone."""
        return bool(self._isolated)

    def add(
        self, call_id: int, items: Sequence[Item], now_s: float, alone: Sequence[bool] = ()
    ) -> None:
        """Queue the items of a call.

        Args:
            call_id: Whose they are.
            items: At least one.
            now_s: Monotonic time.
            alone: Which of them must run alone; none by default.
        """
        if not any(alone):
            self.scheduler.add(call_id, items, now_s)
            return
        for position, (item, is_alone) in enumerate(zip(items, alone, strict=True)):
            entry = Entry(item, call_id, position, now_s)
            if is_alone:
                self._isolated.append(entry)
            else:
                self.scheduler.add_entry(entry)

    def isolate(self, entry: Entry) -> None:
        """Let an entry run again, alone."""
        self._isolated.append(entry)

    def drop(self, call_id: int) -> None:
        """Forget what still waits of a call."""
        self.scheduler.drop(call_id)
        if any(entry.call_id == call_id for entry in self._isolated):
            kept = (entry for entry in self._isolated if entry.call_id != call_id)
            self._isolated = deque(kept)

    def has_work(self, *, is_express: bool = False) -> bool:
        """Whether a worker, or the express, may take something now."""
        if self._is_isolating:
            return False
        if self._isolated:
            return not is_express and not self._busy and not self._is_express_busy
        if is_express:
            return self.is_express_due
        return self.scheduler.waiting_items > 0

    @property
    def is_express_due(self) -> bool:
        """Whether queries wait while bulk stands in their way."""
        return (
            self._busy >= self.workers
            and self._busy_with_bulk > 0
            and not self._isolated
            and self.scheduler.waiting_of(Priority.INTERACTIVE) > 0
        )

    def take(self, now_s: float, *, is_express: bool = False) -> Task:
        """Give a worker its next batch; `has_work` must have said that there is one."""
        if is_express:
            self._is_express_busy = True
            micro = self.scheduler.next_batch(now_s, only=Priority.INTERACTIVE)
            return Task(micro, is_express=True)
        if self._isolated:
            return self._take_isolated(now_s)
        micro = self.scheduler.next_batch(now_s, idle_workers=self.workers - self._busy)
        self._busy += 1
        self._busy_with_bulk += micro.priority is Priority.BULK
        is_lone = self._busy == 1 and len(micro.entries) == 1 and not self.scheduler.waiting_items
        return Task(micro, is_lone=is_lone)

    def done(self, task: Task) -> None:
        """A worker has finished its batch."""
        if task.is_express:
            self._is_express_busy = False
            return
        self._busy -= 1
        if task.is_isolated:
            self._is_isolating = False
        else:
            self._busy_with_bulk -= task.micro.priority is Priority.BULK

    def _take_isolated(self, now_s: float) -> Task:
        entry = self._isolated.popleft()
        self._busy += 1
        self._is_isolating = True
        deadline_s = entry.item.deadline_s
        is_late = deadline_s is not None and deadline_s <= now_s
        micro = Micro(expired=(entry,)) if is_late else Micro(entries=(entry,))
        return Task(micro, is_isolated=True)
