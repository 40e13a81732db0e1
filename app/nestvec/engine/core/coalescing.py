"""Identical texts in flight are run once: whoever comes later waits for whoever came first.

Nobody fails for another's sake: where the first one's call ends without a vector (its client left, its deadline passed,
a neighbour was refused), those that waited run the text themselves. A query does not wait behind the same text in a
bulk call, which may stand in the queue for seconds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from nestvec.engine.results import RawVectors
from nestvec.engine.types import FloatArray, Priority, Submission

Submit = Callable[[Submission], Awaitable[RawVectors]]
Vector = asyncio.Future[FloatArray | None]  # None: its call ended without one


class CoalescingCounts(Protocol):
    """Counts inputs that waited for the run of the same input, in another request or their own."""

    coalesced: int


@dataclass(slots=True)
class Coalescer:
    """Stands before a core's `submit`, for items that give one vector each.

    Attributes:
        run: The core's `submit`.
    """

    run: Submit
    _running: dict[tuple[bytes, Priority], Vector] = field(default_factory=dict)

    async def submit(
        self, submission: Submission, keys: Sequence[bytes], counts: CoalescingCounts
    ) -> RawVectors:
        """Return the vectors of a call's items, each run once however often its key is in flight.

        Args:
            submission: The call.
            keys: For each item a hash of what its vector depends on.
            counts: Told how many items waited for another's run.

        Raises:
            NestvecError: What the core raises.
        """
        items, priority = submission.items, submission.options.priority
        vectors: list[FloatArray | None] = [None] * len(items)
        waits_s, runs_s = [0.0], [0.0]
        missing = list(range(len(items)))
        while missing:
            first: dict[bytes, int] = {}  # items that this call is the first with
            others: list[tuple[int, Vector]] = []
            for index in missing:
                key = keys[index]
                running = self._find(key, priority)
                if running is None:
                    first[key] = index
                    self._running[key, priority] = asyncio.Future()
                else:
                    others.append((index, running))
            if first:
                part = submission.with_items(items[index] for index in first.values())
                raw = await self._run(part, list(first))
                waits_s.append(raw.queue_wait_s)
                runs_s.append(raw.engine_s)
                for vector, index in zip(raw.vectors, first.values(), strict=True):
                    vectors[index] = vector
            for index, running in others:
                vectors[index] = await asyncio.shield(running)
            counts.coalesced += sum(vectors[index] is not None for index, _ in others)
            missing = [index for index, _ in others if vectors[index] is None]
        stacked = np.stack([vector for vector in vectors if vector is not None])
        return RawVectors(stacked, (1,) * len(items), max(waits_s), max(runs_s))

    def _find(self, key: bytes, priority: Priority) -> Vector | None:
        """Return a run to wait for: of the same class, or of one that goes first."""
        queries = self._running.get((key, Priority.INTERACTIVE))
        if queries is not None or priority is Priority.INTERACTIVE:
            return queries
        return self._running.get((key, Priority.BULK))

    async def _run(self, submission: Submission, keys: Sequence[bytes]) -> RawVectors:
        """Run items that this call is the first with, and tell those who wait for them, however it ends."""
        outcomes: Sequence[FloatArray | None] = [None] * len(keys)
        try:
            raw = await self.run(submission)
            outcomes = list(raw.vectors)
            return raw
        finally:
            priority = submission.options.priority
            for key, outcome in zip(keys, outcomes, strict=True):
                waiting = self._running.pop((key, priority))
                if not waiting.done():
                    waiting.set_result(outcome)
