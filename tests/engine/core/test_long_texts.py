"""Long texts beside short ones: which batches they share, queries that pass them, the time that they may take."""

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest
from nestvec.engine.core.batching.cost_model import MIN_SAMPLES

from tests.support.fakes import (
    BAD_ID,
    FAKE_INFO,
    HUGE_ID,
    NAN_ID,
    FakeBackend,
    fake_core,
    fake_vector,
    item,
    submission,
)


async def test_a_query_passes_long_queries_that_hold_every_worker() -> None:
    """Before anything was learned the first estimate tells that the texts that run are long, and the query short."""
    backend = FakeBackend()
    core = fake_core(backend, workers=2, first_token_s=1.0)  # 64 tokens are short, 256 long
    backend.gate.clear()
    long = [asyncio.create_task(core.submit(submission(item(*[1] * 300)))) for _ in range(4)]
    for _ in range(2):
        assert await asyncio.to_thread(backend.started.acquire, timeout=5)
    query = asyncio.create_task(core.submit(submission(item(9))))
    assert await asyncio.to_thread(backend.started.acquire, timeout=5), "the query waits"
    assert not await asyncio.to_thread(backend.started.acquire, timeout=0.1)
    backend.gate.set()
    np.testing.assert_array_equal((await query).vectors, [fake_vector([9])])
    await asyncio.gather(*long)
    core.close()
    assert sorted(backend.batches) == [[1], *[[300]] * 4]


async def test_batches_are_of_one_length_or_of_short_texts_also_after_failures() -> None:
    """What the backend asks for holds for every batch that it sees, those of split and repeated ones included."""
    backend = FakeBackend(replace(FAKE_INFO, max_mixed_tokens=6))
    core = fake_core(backend, workers=2, budget=40)
    random = np.random.default_rng(4)
    lengths = random.choice([1, 3, 6, 7, 8, 12], 120)
    items = [item(*random.integers(1, 600, n), index=index) for index, n in enumerate(lengths)]
    bad = [item(BAD_ID, *[1] * 6), item(HUGE_ID, *[1] * 7), item(HUGE_ID), item(NAN_ID, *[1] * 11)]
    calls = [items[start : start + 10] for start in range(0, 120, 10)] + [[each] for each in bad]
    await asyncio.gather(*(core.submit(submission(*c)) for c in calls), return_exceptions=True)
    core.close()
    assert len(backend.batches) > 20
    assert max(map(len, backend.batches)) > 3
    for batch in backend.batches:
        assert max(batch) <= 6 or len(set(batch)) == 1


@pytest.mark.parametrize(("tokens", "limit_s"), [(10, 120.0), (8192, 819.2)])
async def test_a_long_text_does_not_count_as_hanging_before_anything_was_learned(
    tokens: int, limit_s: float
) -> None:
    """The first estimate gives a long text ten times its time; a short one that hangs is found as ever."""
    backend = FakeBackend()
    core = fake_core(backend, first_token_s=0.01)
    backend.gate.clear()
    task = asyncio.create_task(core.submit(submission(item(*[1] * tokens))))
    await asyncio.to_thread(backend.started.acquire)
    now_s = time.monotonic()
    assert core.health(now_s + limit_s - 5, 120.0).overdue_s == 0
    assert core.health(now_s + limit_s + 5, 120.0).overdue_s == pytest.approx(5, abs=1)
    backend.gate.set()
    await task
    core.close()


async def test_what_was_learned_of_short_texts_shortens_no_long_ones_limit() -> None:
    """Where only short texts ran, fast ones, a long text still has the time of the first estimate."""
    backend = FakeBackend()
    core = fake_core(backend, first_token_s=0.01)
    for tokens in range(1, MIN_SAMPLES + 3):
        await core.submit(submission(item(*[1] * tokens)))
    backend.gate.clear()
    task = asyncio.create_task(core.submit(submission(item(*[1] * 8192))))
    while backend.started.acquire(blocking=False):
        pass
    await asyncio.to_thread(backend.started.acquire)
    assert core.health(time.monotonic() + 800, 120.0).overdue_s == 0
    assert core.health(time.monotonic() + 850, 120.0).overdue_s > 0
    backend.gate.set()
    await task
    core.close()


async def test_what_waits_is_told_in_seconds_of_what_it_costs() -> None:
    """Whoever multiplies the tokens that wait by the seconds of each gets the time of long texts, not of short ones."""
    backend = FakeBackend()
    core = fake_core(backend, first_token_s=0.01)
    core.queue.dispatcher.scheduler.cost = lambda lengths: float(
        (lengths + lengths**2 / 1000).sum()
    )
    backend.gate.clear()
    tasks = [asyncio.create_task(core.submit(submission(item(*[1] * n)))) for n in (1, 4000)]
    await asyncio.to_thread(backend.started.acquire)
    health = core.health(time.monotonic(), 120.0)
    assert health.waiting_tokens == 4000
    assert health.waiting_tokens * health.token_s == pytest.approx(20_000 * 0.01)
    backend.gate.set()
    await asyncio.gather(*tasks)
    core.close()
