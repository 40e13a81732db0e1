"""Vectors that were run before, and texts in flight: what is found, what is run, and that nobody fails for another."""

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.cache.vector_cache import VectorCache, key_of
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.types import EmbedCall, Item, ItemOptions, OutputKind, Priority
from nestvec.errors import DeadlineError, InternalError

from tests.engine.front.test_vector_plan import random_map
from tests.support.fakes import BAD_ID, NAN_ID, item
from tests.support.served import SPEC, Served, ServedOptions, serve_fake

MEGABYTE = 2**20


class MemoryStore:
    """Keeps vectors in a dictionary."""

    def __init__(self) -> None:
        self.vectors: dict[bytes, bytes] = {}
        self.lookups = 0

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return the vectors that are there."""
        self.lookups += len(keys)
        return {key: self.vectors[key] for key in keys if key in self.vectors}

    def put(self, vectors: Mapping[bytes, bytes]) -> None:
        """Keep vectors at once."""
        self.vectors |= vectors

    def close(self) -> None:
        """Do nothing: nothing waits to be written."""


def serve_cached(folder: Path, cache: VectorCache | None = None, **options: object) -> Served:
    """Return a service that keeps vectors."""
    chosen = ServedOptions(cache=cache or VectorCache(MEGABYTE))
    return serve_fake(folder / "tokenizer.json", dataclasses.replace(chosen, **options))  # type: ignore[arg-type]


def runs(served: Served) -> int:
    """Return the number of items that the backend ran."""
    return sum(len(batch) for batch in served.backend.batches)


async def test_every_form_is_made_from_one_run(tiny_folder: Path) -> None:
    """Every dimension, dtype, raw vector and map of a text that was run is bit for bit what a new run gives."""
    turned = random_map("turned")
    served = serve_cached(tiny_folder, maps=(turned,))
    fresh = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(maps=(turned,)))
    texts = ["alpha", "beta gamma", ""]
    await served.service.embed(EmbedCall(texts))
    forms = [
        EmbedCall(texts),
        EmbedCall(texts[::-1], dimensions=3),
        EmbedCall(texts, output_dtypes=(OutputDtype.UBINARY, OutputDtype.INT8)),
        EmbedCall(texts, normalize=False),
        EmbedCall(texts, map_id="turned", dimensions=4),
    ]
    for call in forms:
        cached, expected = [await each.service.embed(call) for each in (served, fresh)]
        np.testing.assert_array_equal(cached.vectors, expected.vectors)
        for dtype in call.output_dtypes:
            np.testing.assert_array_equal(cached.converted[dtype], expected.converted[dtype])
        assert cached.input_tokens == expected.input_tokens
    assert runs(served) == 3
    cache = served.service.read_through.cache
    assert cache is not None
    (counts,) = cache.counts.values()
    assert (counts.hits, counts.misses) == (15, 3)
    assert counts.saved_tokens == 5 * 9
    served.service.close()
    fresh.service.close()


async def test_hits_and_misses_in_one_call(tiny_folder: Path) -> None:
    """Only what is missing is run; rows stay in input order."""
    served = serve_cached(tiny_folder)
    first = await served.service.embed(EmbedCall(["alpha", "beta"]))
    both = await served.service.embed(EmbedCall(["gamma", "beta", "alpha", "gamma"]))
    assert runs(served) == 3
    np.testing.assert_array_equal(both.vectors[[2, 1]], first.vectors)
    np.testing.assert_array_equal(both.vectors[0], both.vectors[3])
    served.service.close()


@pytest.mark.parametrize(
    "other",
    [
        (Item(np.array([1, 2], np.int32), skip_tokens=1), ItemOptions()),
        (Item(np.array([1, 2], np.int32)), ItemOptions(exits=(1,))),
        (Item(np.array([2, 1], np.int32)), ItemOptions()),
        (Item(np.array([1, 2, 3], np.int32)), ItemOptions()),
    ],
    ids=["skipped prompt", "exit", "order", "length"],
)
def test_keys_tell_what_decides_a_vector(other: tuple[Item, ItemOptions]) -> None:
    """Keys depend on what decides a vector and nothing else: not on priority, deadline, index or API key."""
    key = key_of("space", item(1, 2), ItemOptions())
    others = ItemOptions(priority=Priority.BULK, key_id="k", deadline_s=3.0)
    assert key_of("space", item(1, 2, index=7), others) == key
    assert key_of("other", item(1, 2), ItemOptions()) != key
    assert key_of("space", *other) not in (None, key)


def test_keys_stay_what_they_were() -> None:
    """A vector cache file of an earlier version still holds what it held: keys are the same bytes."""
    options = ItemOptions(exits=(4,))
    key = key_of("a-space", Item(np.array([101, 7, 102], np.int32), skip_tokens=2), options)
    head = b"a-space (4,) 2 "
    ids = np.array([101, 7, 102], "<i4").tobytes()
    assert key == blake2b(head + ids, digest_size=16).digest()


@pytest.mark.parametrize(
    "changes",
    [
        ({}, {"kind": OutputKind.TOKENS}),
        ({}, {"kind": OutputKind.LABELS}),
        ({}, {"exits": (1, 2)}),
        ({"spans": ((0, 1),)}, {}),
        ({"expansion": 1}, {}),
        ({"gives_states": True}, {}),
    ],
    ids=str,
)
def test_only_single_vectors_are_kept(changes: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Items that give token vectors, labels or several vectors have no key."""
    of_item, options = changes
    changed = dataclasses.replace(item(1, 2), **of_item)
    assert key_of("space", changed, ItemOptions(**options)) is None


async def test_a_caller_may_keep_out(tiny_folder: Path) -> None:
    """A call that opts out neither takes vectors from the cache nor leaves any in it."""
    served = serve_cached(tiny_folder)
    for _ in range(2):
        await served.service.embed(EmbedCall(["alpha"], uses_cache=False))
    assert runs(served) == 2
    assert served.service.read_through.cache is not None
    assert served.service.read_through.cache.entries == 0
    served.service.close()


async def test_half_precision_gives_the_same_hit_or_not(tiny_folder: Path) -> None:
    """Every vector is rounded, so an answer does not tell what was cached."""
    served = serve_cached(tiny_folder, VectorCache(MEGABYTE, "float16"))
    first, second = [
        await served.service.embed(EmbedCall(["alpha"], normalize=False)) for _ in range(2)
    ]
    np.testing.assert_array_equal(first.vectors, second.vectors)
    np.testing.assert_array_equal(first.vectors, first.vectors.astype(np.float16))
    assert runs(served) == 1
    served.service.close()


def test_it_stays_within_its_bytes() -> None:
    """However much is put in, the cache takes no more bytes than it may."""
    cache = VectorCache(100_000)
    for number in range(2000):
        cache.put({number.to_bytes(16, "big"): np.zeros(64, np.float32)})
    assert cache.held_bytes <= 100_000
    assert 0 < cache.entries < 300


async def test_a_store_behind_is_asked_for_what_memory_lacks(tiny_folder: Path) -> None:
    """What memory lacks is taken from the store once and kept in memory; another process finds it there too."""
    store = MemoryStore()
    filling = serve_cached(tiny_folder, VectorCache(MEGABYTE, store=store))
    first = await filling.service.embed(EmbedCall(["alpha", "beta"]))
    other = serve_cached(tiny_folder, VectorCache(MEGABYTE, store=store))
    for _ in range(2):
        result = await other.service.embed(EmbedCall(["alpha", "beta"]))
        np.testing.assert_array_equal(result.vectors, first.vectors)
    assert runs(other) == 0
    assert other.service.read_through.cache is not None
    (counts,) = other.service.read_through.cache.counts.values()
    assert counts.stored_hits == 2
    assert store.lookups == 4
    filling.service.close()
    other.service.close()


async def test_identical_texts_in_flight_run_once(tiny_folder: Path) -> None:
    """A text that a hundred calls send at once, each of them twice, is run once."""
    served = serve_cached(tiny_folder)
    served.backend.gate.clear()
    calls = [
        asyncio.create_task(served.service.embed(EmbedCall(["alpha", "alpha"]))) for _ in range(100)
    ]
    while not served.backend.started.acquire(blocking=False):
        await asyncio.sleep(0.01)
    served.backend.gate.set()
    results = await asyncio.gather(*calls)
    assert runs(served) == 1
    for result in results:
        np.testing.assert_array_equal(result.vectors, results[0].vectors[[0, 0]])
    assert served.service.read_through.cache is not None
    (counts,) = served.service.read_through.cache.counts.values()
    assert counts.coalesced == 199
    served.service.close()


async def test_nobody_fails_because_the_first_one_left(tiny_folder: Path) -> None:
    """Where the call that came first was cancelled, those that waited run the text themselves."""
    served = serve_cached(tiny_folder)
    served.backend.gate.clear()
    blocker = asyncio.create_task(served.service.embed(EmbedCall(["red"])))
    while not served.backend.started.acquire(blocking=False):
        await asyncio.sleep(0.01)
    leaver = asyncio.create_task(served.service.embed(EmbedCall(["alpha"])))
    await asyncio.sleep(0.02)
    waiter = asyncio.create_task(served.service.embed(EmbedCall(["alpha"])))
    await asyncio.sleep(0.02)
    leaver.cancel()
    await asyncio.sleep(0.02)
    served.backend.gate.set()
    result = await waiter
    assert result.vectors.shape == (1, 8)
    await blocker
    with pytest.raises(asyncio.CancelledError):
        await leaver
    served.service.close()


async def test_a_waiter_has_its_own_deadline(tiny_folder: Path) -> None:
    """A waiter does not wait longer than it may for another's run, and does not end that run."""
    served = serve_cached(tiny_folder)
    served.backend.gate.clear()
    owner = asyncio.create_task(served.service.embed(EmbedCall(["alpha"])))
    await asyncio.sleep(0.02)
    deadline_s = asyncio.get_running_loop().time() + 0.05
    with pytest.raises(DeadlineError):
        await served.service.embed(EmbedCall(["alpha"], deadline_s=deadline_s))
    served.backend.gate.set()
    assert (await owner).vectors.shape == (1, 8)
    served.service.close()


@pytest.mark.parametrize("bad", [BAD_ID, NAN_ID])
async def test_failures_are_not_kept(tiny_folder: Path, bad: int) -> None:
    """A text that failed is not kept, and each caller is told the index in its own call."""
    spec = dataclasses.replace(SPEC, vocabulary_size=1000)
    served = serve_cached(tiny_folder, spec=spec)
    for inputs, index in (([[bad]], 0), ([[5], [bad]], 1)):
        with pytest.raises(InternalError) as caught:
            await served.service.embed(EmbedCall(inputs))
        assert caught.value.input_index == index
    result = await served.service.embed(EmbedCall([[5]]))
    assert np.isfinite(result.vectors).all()
    served.service.close()


async def test_a_query_does_not_wait_behind_bulk(tiny_folder: Path) -> None:
    """Where the same text stands in the queue for a bulk call, the query runs it itself."""
    served = serve_cached(tiny_folder)
    served.backend.gate.clear()
    bulk = asyncio.create_task(
        served.service.embed(EmbedCall(["red", "alpha"], priority=Priority.BULK))
    )
    await asyncio.sleep(0.02)
    query = asyncio.create_task(
        served.service.embed(EmbedCall(["alpha"], priority=Priority.INTERACTIVE))
    )
    await asyncio.sleep(0.02)
    served.backend.gate.set()
    of_query, of_bulk = await query, await bulk
    np.testing.assert_array_equal(of_query.vectors[0], of_bulk.vectors[1])
    assert runs(served) == 3
    served.service.close()


def test_what_half_precision_cannot_hold_stays_finite() -> None:
    """Values beyond the range of float16, as some models' raw vectors have, become its extremes."""
    cache = VectorCache(MEGABYTE, "float16")
    long = np.array([1e6, -1e6, 1.0], np.float32)
    cache.put({b"k": long})
    (cached,) = cache.get([b"k"])
    assert cached is not None
    assert np.isfinite(cached).all()
    np.testing.assert_array_equal(cached, cache.rounded(long[None])[0])
