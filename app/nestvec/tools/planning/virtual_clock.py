"""A clock that jumps from event to event: pure, and the same each time."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

Event = tuple[float, int, Callable[[], None]]


@dataclass(slots=True)
class VirtualClock:
    """Events in order of their time; those of one time in the order in which they were planned.

    Attributes:
        now_s: Virtual seconds since the start.
    """

    now_s: float = 0.0
    _events: list[Event] = field(default_factory=list)
    _planned: int = 0

    def at(self, time_s: float, happen: Callable[[], None]) -> None:
        """Plan an event; one that is late happens at once."""
        self._planned += 1
        heapq.heappush(self._events, (max(time_s, self.now_s), self._planned, happen))

    def after(self, wait_s: float, happen: Callable[[], None]) -> None:
        """Plan an event some seconds from now."""
        self.at(self.now_s + wait_s, happen)

    def run(self) -> None:
        """Let everything happen that is planned, and what comes of it, until nothing is planned any more."""
        while self._events:
            self.now_s, _, happen = heapq.heappop(self._events)
            happen()
