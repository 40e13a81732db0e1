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

from nestvec.engine.types import FloatArray, Item, Priority, RawVectors

Submit = Callable[[Sequence[Item]], Awaitable[RawVectors]]
Vector = asyncio.Future[FloatArray | None]  # None: its call ended without one


class CoalescingCounts(Protocol):
    """Counts inputs that waited for the run of the same one in another request, or the same."""

    coalesced: int


@dataclass(slots=True)
class Coalescer:
    """Stands before a core's `submit`, for items that give one vector each.

    Attributes:
        run: The core's.
    """

    run: Submit
    _running: dict[tuple[bytes, Priority], Vector] = field(default_factory=dict)

    async def submit(
        self, items: Sequence[Item], keys: Sequence[bytes], counts: CoalescingCounts
    ) -> RawVectors:
        """Vectors of items, each run once however often its key is in flight.

        Args:
            items: At least one.
            keys: What each item's vector depends on.
            counts: Told how many items waited for another's run.

        Raises:
            NestvecError: As the core says.
        """
        found: list[FloatArray | None] = [None] * len(items)
        waits, runs = [0.0], [0.0]
        missing = list(range(len(items)))
        while missing:
            own: dict[bytes, int] = {}
            others: list[tuple[int, Vector]] = []
            for number in missing:
                key = keys[number]
                running = self._find(key, items[number].priority)
                if running is None:
                    own[key] = number
                    self._running[key, items[number].priority] = asyncio.Future()
                else:
                    others.append((number, running))
            if own:
                raw = await self._run([items[n] for n in own.values()], list(own))
                waits.append(raw.queue_wait_s)
                runs.append(raw.engine_s)
                for vector, number in zip(raw.vectors, own.values(), strict=True):
                    found[number] = vector
            for number, running in others:
                found[number] = await asyncio.shield(running)
            counts.coalesced += sum(found[number] is not None for number, _ in others)
            missing = [number for number, _ in others if found[number] is None]
        vectors = np.stack([vector for vector in found if vector is not None])
        return RawVectors(vectors, (1,) * len(items), max(waits), max(runs))

    def _find(self, key: bytes, priority: Priority) -> Vector | None:
        """A run to wait for: of the same class, or of one that goes first."""
        queries = self._running.get((key, Priority.INTERACTIVE))
        if queries is not None or priority is Priority.INTERACTIVE:
            return queries
        return self._running.get((key, Priority.BULK))

    async def _run(self, items: Sequence[Item], keys: Sequence[bytes]) -> RawVectors:
        """Run items that this call is the first with; tells those who wait, however it ends."""
        settled: Sequence[FloatArray | None] = [None] * len(items)
        try:
            raw = await self.run(items)
            settled = list(raw.vectors)
            return raw
        finally:
            for item, key, vector in zip(items, keys, settled, strict=True):
                waiting = self._running.pop((key, item.priority))
                if not waiting.done():
                    waiting.set_result(vector)
