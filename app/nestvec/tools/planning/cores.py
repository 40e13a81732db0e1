"""The cores of one machine, shared evenly by whatever threads run: pure.

A thread runs at full speed while there is a core for it, slower while other cores are busy too (they share caches and
memory), and slower still where there are more threads than cores. So do the threads of work that runs in several:
those that wait for each other leave their cores to others.

As every thread runs equally fast at any moment, work is measured on one common scale, which moves on faster or slower:
the first to end is the one with the nearest mark.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from nestvec.tools.planning.virtual_clock import VirtualClock

RECENT_S: Final = 1.0  # what was a second ago counts a third of what is now
MIN_LEFT_S: Final = 1e-9  # sums of floats drift: what is a nanosecond from its mark has reached it


@dataclass(slots=True)
class Cores:
    """Runs work of threads.

    Attributes:
        clock: The virtual time.
        count: Number of cores.
        slowdown: How many times as long work takes while all cores are busy.
        busy_core_s: Core seconds that were used so far.
    """

    clock: VirtualClock
    count: int
    slowdown: float = 1.0
    busy_core_s: float = 0.0
    _threads: int = 0
    _idle_share: float = 1.0
    _done_s: float = 0.0  # how far each thread that ran all the time has come
    _seen_s: float = 0.0
    _ends: list[tuple[float, int, int, Callable[[], None]]] = field(default_factory=list)
    _begun: int = 0
    _plan: int = 0

    def run(self, work_s: float, then: Callable[[], None], threads: int = 1) -> None:
        """Begin work.

        Args:
            work_s: Seconds that it takes on an idle machine.
            then: Called once it is done.
            threads: How many threads it runs in side by side.
        """
        self._move_on()
        self._begun += 1
        # What was measured with several threads has been slowed down by itself already.
        work = work_s / self._slowed(min(threads, self.count))
        heapq.heappush(self._ends, (self._done_s + work, self._begun, threads, then))
        self._threads += threads
        self._plan_next()

    def idle_share(self) -> float:
        """Return which share of the cores had nothing to do of late."""
        self._move_on()
        return self._idle_share

    def _slowed(self, busy: int) -> float:
        """Return how many times as long work takes while so many cores are busy."""
        if self.count == 1:
            return 1.0
        return 1.0 + (self.slowdown - 1.0) * max(0, busy - 1) / (self.count - 1)

    def _speed(self) -> float:
        """Return how fast every thread runs now."""
        if not self._threads:
            return 1.0
        share = min(1.0, self.count / self._threads)
        return share / self._slowed(min(self._threads, self.count))

    def _move_on(self) -> None:
        """Let the threads come as far as they have by now."""
        passed_s = self.clock.now_s - self._seen_s
        self._seen_s = self.clock.now_s
        self._done_s += passed_s * self._speed()
        busy = min(self._threads, self.count)
        self.busy_core_s += passed_s * busy
        old = math.exp(-passed_s / RECENT_S)
        self._idle_share = old * self._idle_share + (1 - old) * (1 - busy / self.count)

    def _plan_next(self) -> None:
        """Plan the end of what ends first; earlier plans are void."""
        self._plan += 1
        if not self._ends:
            return
        plan = self._plan
        left_s = max(0.0, self._ends[0][0] - self._done_s) / self._speed()
        self.clock.after(left_s, lambda: self._end(plan))

    def _end(self, plan: int) -> None:
        """End what has come to its mark."""
        if plan != self._plan:
            return
        self._move_on()
        ended: list[Callable[[], None]] = []
        while self._ends and self._ends[0][0] <= self._done_s + MIN_LEFT_S:
            _, _, threads, then = heapq.heappop(self._ends)
            self._threads -= threads
            ended.append(then)
        self._plan_next()
        for then in ended:
            then()


@dataclass(slots=True)
class SerialThread:
    """A thread that does one piece of work after the other, as an event loop does.

    Attributes:
        cores: What it runs on.
        wake_s: Core seconds that the first piece of work takes more when nothing was to be done before.
        work_s: Core seconds of all work so far, of waking up too.
    """

    cores: Cores
    wake_s: float = 0.0
    work_s: float = 0.0
    _waiting: deque[tuple[float, Callable[[], None]]] = field(default_factory=deque)
    _is_busy: bool = False

    def run(self, work_s: float, then: Callable[[], None]) -> None:
        """Do work once what came before is done."""
        self._waiting.append((work_s if self._is_busy else work_s + self.wake_s, then))
        if not self._is_busy:
            self._begin()

    def _begin(self) -> None:
        self._is_busy = bool(self._waiting)
        if not self._waiting:
            return
        work_s, then = self._waiting.popleft()
        self.work_s += work_s

        def done() -> None:
            then()
            self._begin()

        self.cores.run(work_s, done)
