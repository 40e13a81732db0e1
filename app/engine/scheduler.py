"""Which items run next: pure, no thread, no clock of its own.

The oldest waiting item always leaves with the next batch, so nothing starves; it is joined by the items
nearest to it in length, inside a look-ahead window of the oldest ones, until the batch's cost reaches the
budget. Likeness in length keeps the padded view around attention small. The queue never waits for company: work
waiting means a batch is given.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from app.engine.types import Item

CostFunction = Callable[[NDArray[np.int64]], float]


@dataclass(frozen=True, slots=True)
class Entry:
    """An item in the queue.

    Attributes:
        call_id: Which call it belongs to; calls are dropped whole.
        position: Where its result goes within the call.
        arrived_s: Monotonic arrival time.
    """

    item: Item
    call_id: int
    position: int
    arrived_s: float


@dataclass(frozen=True, slots=True)
class Micro:
    """A micro-batch, and the entries found expired on the way."""

    entries: tuple[Entry, ...] = ()
    expired: tuple[Entry, ...] = ()


@dataclass(slots=True)
class Scheduler:
    """A bounded queue that gives batches.

    Attributes:
        cost: Price of a batch from its lengths, as the backend declares it.
        budget: Most cost of a batch; an item dearer than that runs alone.
        lookahead_items: How many of the oldest items may be reordered by length.
    """

    cost: CostFunction
    budget: float
    lookahead_items: int
    _queue: dict[int, Entry] = field(default_factory=dict)  # sequence number → entry, oldest first
    _calls: dict[int, set[int]] = field(default_factory=dict)  # call → its waiting numbers
    _next: int = 0
    _tokens: int = 0

    @property
    def waiting_items(self) -> int:
        """Items in the queue."""
        return len(self._queue)

    @property
    def waiting_tokens(self) -> int:
        """Tokens in the queue."""
        return self._tokens

    def add(self, call_id: int, items: Sequence[Item], now_s: float) -> None:
        """Queue the items of a call, in order."""
        numbers = self._calls.setdefault(call_id, set())
        for position, item in enumerate(items):
            self._queue[self._next] = Entry(item, call_id, position, now_s)
            numbers.add(self._next)
            self._next += 1
            self._tokens += item.tokens

    def drop(self, call_id: int) -> tuple[Entry, ...]:
        """Forget what still waits of a call; returns it."""
        return tuple(self._remove(number) for number in sorted(self._calls.get(call_id, ())))

    def next_batch(self, now_s: float) -> Micro:
        """Take the next micro-batch out of the queue.

        Args:
            now_s: Monotonic time; entries whose deadline has passed are set aside as expired.

        Returns:
            At least one entry if any unexpired one waits.
        """
        expired = tuple(self._take_expired(now_s))
        if not self._queue:
            return Micro((), expired)
        window = list(islice(self._queue.items(), self.lookahead_items))
        anchor = window[0][1].item.tokens
        window.sort(key=lambda pair: (abs(pair[1].item.tokens - anchor), pair[0]))
        lengths = np.fromiter((entry.item.tokens for _, entry in window), np.int64, len(window))
        # Cost grows with every item, so the longest prefix within the budget is found by bisection; the
        # oldest item is at its head and goes whatever it costs.
        more = bisect_right(
            range(2, len(window) + 1), self.budget, key=lambda count: self.cost(lengths[:count])
        )
        return Micro(tuple(self._remove(number) for number, _ in window[: 1 + more]), expired)

    def _take_expired(self, now_s: float) -> list[Entry]:
        """Remove what is too late within the window."""
        late = [
            number
            for number, entry in islice(self._queue.items(), self.lookahead_items)
            if entry.item.deadline_s is not None and entry.item.deadline_s <= now_s
        ]
        return [self._remove(number) for number in late]

    def _remove(self, number: int) -> Entry:
        entry = self._queue.pop(number)
        self._tokens -= entry.item.tokens
        waiting = self._calls[entry.call_id]
        waiting.discard(number)
        if not waiting:
            del self._calls[entry.call_id]
        return entry
