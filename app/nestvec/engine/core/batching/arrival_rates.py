"""How much work joins the queue in a second, by class and by key: pure, no clock of its own."""

import math
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from nestvec.engine.types import Priority

WINDOW_S: Final = 5.0  # what came so long ago counts a third
MAX_KEYS: Final = 4096  # keys beyond are forgotten, those that came least of late first
MIN_SPAN_S: Final = 1.0  # a first call is no stream
Group = tuple[Priority, str | None]  # a class, and a key in it; None for the whole class


class _Sum(NamedTuple):
    """Decaying sum of what calls cost, in token equivalents: how much, as of when, and since when some has come."""

    cost: float
    at_s: float
    begun_s: float


@dataclass(slots=True)
class ArrivalRates:
    """What was admitted of late a second, in token equivalents, as decaying sums."""

    _sums: dict[Group, "_Sum"] = field(default_factory=dict)

    def add(self, priority: Priority, key_id: str, cost: float, now_s: float) -> None:
        """Note that work of this cost has joined the queue."""
        for group in ((priority, None), (priority, key_id)):
            before = self._sums.get(group)
            kept = self._decayed(group, now_s)
            begun_s = before.begun_s if before is not None and kept >= 1 else now_s
            self._sums[group] = _Sum(kept + cost, now_s, begun_s)
        if len(self._sums) > MAX_KEYS:
            self._forget(now_s)

    def of_class(self, priority: Priority, now_s: float) -> float:
        """Return the cost a second of a class."""
        return self._rate((priority, None), now_s)

    def of_others(self, priority: Priority, key_id: str, now_s: float) -> float:
        """Return the cost a second of what other keys sent in a class."""
        return max(0.0, self.of_class(priority, now_s) - self._rate((priority, key_id), now_s))

    def _rate(self, group: Group, now_s: float) -> float:
        """Return the cost a second of a group, as far back as it goes, up to the window."""
        found = self._sums.get(group)
        if found is None:
            return 0.0
        span_s = WINDOW_S * (1 - math.exp(min(0.0, found.begun_s - now_s) / WINDOW_S))
        return self._decayed(group, now_s) / max(MIN_SPAN_S, span_s)

    def _decayed(self, group: Group, now_s: float) -> float:
        found = self._sums.get(group)
        if found is None:
            return 0.0
        return found.cost * math.exp(min(0.0, found.at_s - now_s) / WINDOW_S)

    def _forget(self, now_s: float) -> None:
        kept = sorted(self._sums, key=lambda group: -self._decayed(group, now_s))[: MAX_KEYS // 2]
        self._sums = {group: self._sums[group] for group in kept}
