"""Items to raw vectors: from the cache where they are, by the model where not."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import compress

import numpy as np

from nestvec.engine.cache.vector_cache import Key, VectorCache, key_of
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import FloatArray, Item, RawVectors


@dataclass(slots=True)
class VectorFetcher:
    """The front's look-up before the core.

    Attributes:
        cache: None where nothing is kept.
        threads: For the store behind the cache, which blocks.
    """

    cache: VectorCache | None
    threads: Executor

    async def fetch(
        self, model: ServedModel, items: Sequence[Item], *, uses_cache: bool
    ) -> RawVectors:
        """Raw vectors of items.

        Args:
            model: Whose.
            items: At least one.
            uses_cache: Whether the caller allows that its vectors be kept and found.

        Raises:
            NestvecError: As the core says.
        """
        cache = self.cache
        if cache is None or not uses_cache:
            return await model.core.submit(items)
        keys = [key for item in items if (key := key_of(model.spec.space, item)) is not None]
        if len(keys) != len(items):  # spans, tokens, terms, labels: each call has items of one kind
            return await model.core.submit(items)
        found = await self._kept(cache, keys)
        is_missing = [vector is None for vector in found]
        self._count(cache, items, is_missing)
        if not any(is_missing):
            return RawVectors(_stacked(found), (1,) * len(items), 0.0, 0.0)
        own_keys = list(compress(keys, is_missing))
        missing = list(compress(items, is_missing))
        raw = await model.coalescer.submit(missing, own_keys, cache.counts)
        cache.put(dict(zip(own_keys, raw.vectors, strict=True)))
        made = iter(cache.rounded(raw.vectors))
        whole = [next(made) if vector is None else vector for vector in found]
        return RawVectors(_stacked(whole), (1,) * len(items), raw.queue_wait_s, raw.engine_s)

    async def _kept(self, cache: VectorCache, keys: Sequence[Key]) -> list[FloatArray | None]:
        """Vectors from memory, then from the store."""
        found = cache.get(keys)
        if cache.store is None:
            return found
        rest = [key for key, vector in zip(keys, found, strict=True) if vector is None]
        if not rest:
            return found
        loop = asyncio.get_running_loop()
        stored = await loop.run_in_executor(self.threads, cache.get_stored, rest)
        cache.counts.stored_hits += len(stored)
        return [
            stored.get(key) if vector is None else vector
            for key, vector in zip(keys, found, strict=True)
        ]

    @staticmethod
    def _count(cache: VectorCache, items: Sequence[Item], is_missing: Sequence[bool]) -> None:
        missed = sum(is_missing)
        counts = cache.counts
        counts.hits += len(items) - missed
        counts.misses += missed
        counts.saved_tokens += sum(
            item.tokens for item, missing in zip(items, is_missing, strict=True) if not missing
        )


def _stacked(vectors: Sequence[FloatArray | None]) -> FloatArray:
    """(B, H), float32, of rows of which none is missing."""
    return np.stack([vector for vector in vectors if vector is not None])
