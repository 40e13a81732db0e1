"""Raw vectors of a call: from the cache where they are there, from the model where they are not."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress

import numpy as np

from nestvec.engine.cache.vector_cache import CacheCounts, Key, VectorCache, key_of
from nestvec.engine.front.front_threads import FrontThreads
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.results import RawVectors
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.engine.types import FloatArray, Item, Submission


@dataclass(slots=True)
class ReadThroughCache:
    """Looks a call's items up before the core runs them, and keeps what it ran.

    Attributes:
        cache: Where vectors are kept; None where nothing is kept.
        threads: For the store behind the cache, which blocks.
    """

    cache: VectorCache | None
    threads: FrontThreads

    async def fetch(
        self, model: ServedModel, submission: Submission, *, uses_cache: bool
    ) -> RawVectors:
        """Return the raw vectors of a call's items.

        Args:
            model: The model that runs what is missing.
            submission: The call.
            uses_cache: Whether the caller allows that its vectors be kept, and taken from the cache.

        Raises:
            NestvecError: What the core raises.
        """
        cache, items, options = self.cache, submission.items, submission.options
        if cache is None or not uses_cache:
            return await model.core.submit(submission)
        space = model.spec.space
        keys = [key for item in items if (key := key_of(space, item, options)) is not None]
        if len(keys) != len(items):  # spans, tokens, terms, labels: each call has items of one kind
            return await model.core.submit(submission)
        counts = cache.counts_of(model.spec.name)
        cached = await self._lookup(cache, keys, counts)
        is_missing = [vector is None for vector in cached]
        self._count(counts, items, is_missing)
        if not any(is_missing):
            return RawVectors(_stacked(cached), (1,) * len(items), 0.0, 0.0)
        missing_keys = list(compress(keys, is_missing))
        missing = submission.with_items(compress(items, is_missing))
        raw = await model.coalescer.submit(missing, missing_keys, counts)
        cache.put(dict(zip(missing_keys, raw.vectors, strict=True)))
        computed = iter(cache.rounded(raw.vectors))
        vectors = [next(computed) if vector is None else vector for vector in cached]
        return RawVectors(_stacked(vectors), (1,) * len(items), raw.queue_wait_s, raw.engine_s)

    async def _lookup(
        self, cache: VectorCache, keys: Sequence[Key], counts: CacheCounts
    ) -> list[FloatArray | None]:
        """Return vectors from memory, then from the store; None for those in neither."""
        in_memory = cache.get(keys)
        if cache.store is None:
            return in_memory
        missing = [key for key, vector in zip(keys, in_memory, strict=True) if vector is None]
        if not missing:
            return in_memory
        work = partial(cache.get_stored, missing)
        stored = await self.threads.run(work, WorkTicket(), chars=0)
        counts.stored_hits += len(stored)
        return [
            stored.get(key) if vector is None else vector
            for key, vector in zip(keys, in_memory, strict=True)
        ]

    @staticmethod
    def _count(counts: CacheCounts, items: Sequence[Item], is_missing: Sequence[bool]) -> None:
        misses = sum(is_missing)
        counts.hits += len(items) - misses
        counts.misses += misses
        counts.saved_tokens += sum(
            item.tokens for item, missing in zip(items, is_missing, strict=True) if not missing
        )


def _stacked(vectors: Sequence[FloatArray | None]) -> FloatArray:
    """Return (B, H), float32, of rows of which none is missing."""
    return np.stack([vector for vector in vectors if vector is not None])
