"""The core: order, isolation, bounds, cancellation, deadlines, close."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from nestvec.engine.core.batching.cost_model import MIN_SAMPLES
from nestvec.engine.core.engine_core import LOST_S, EngineCore
from nestvec.engine.types import Item, ItemOptions, Priority, RawOutput
from nestvec.errors import (
    BackendError,
    DeadlineError,
    DegenerateVectorError,
    MemoryShortError,
    NotReadyError,
    QueueFullError,
)

from tests.support.fakes import (
    BAD_ID,
    FAKE_INFO,
    HUGE_ID,
    LOST_ID,
    NAN_ID,
    ZERO_ID,
    FakeBackend,
    FakeClock,
    RecordingObserver,
    fake_core,
    fake_vector,
    item,
    submission,
)


@pytest.fixture
def backend() -> FakeBackend:
    """Return a fake backend with its gate open."""
    return FakeBackend()


@pytest.fixture
def observer() -> RecordingObserver:
    """Return an observer that keeps what it is told."""
    return RecordingObserver()


@pytest.fixture
def core(backend: FakeBackend, observer: RecordingObserver) -> Iterator[EngineCore]:
    """Return a started core with one worker."""
    started = fake_core(backend, observer)
    yield started
    backend.gate.set()
    started.close()


def random_items(seed: int, count: int) -> list[Item]:
    """Return items of random lengths and ids."""
    random = np.random.default_rng(seed)
    return [item(*random.integers(1, 600, random.integers(1, 20)), index=n) for n in range(count)]


async def test_vectors_come_in_item_order_over_many_batches(
    core: EngineCore, backend: FakeBackend
) -> None:
    """Sorting by length and cutting by budget never mixes rows up."""
    items = random_items(1, 100)
    raw = await core.submit(submission(*items))
    assert len(backend.batches) > 5
    for row, sent in zip(raw.vectors, items, strict=True):
        np.testing.assert_array_equal(row, fake_vector(sent.ids))


async def test_concurrent_calls_get_their_own_vectors(observer: RecordingObserver) -> None:
    """Fifty callers over four workers: each gets what it asked for, and every item is counted once."""
    core = fake_core(FakeBackend(), observer, workers=4)
    wanted = [random_items(seed, seed % 7 + 1) for seed in range(50)]
    answers = await asyncio.gather(*(core.submit(submission(*items)) for items in wanted))
    core.close()
    for items, raw in zip(wanted, answers, strict=True):
        np.testing.assert_array_equal(raw.vectors, [fake_vector(i.ids) for i in items])
    assert sum(stats.items for stats in observer.batches) == sum(map(len, wanted))
    assert observer.queue == (0, 0)


@pytest.mark.parametrize(
    ("poison", "kind"),
    [(BAD_ID, BackendError), (NAN_ID, DegenerateVectorError), (ZERO_ID, DegenerateVectorError)],
    ids=["runtime fails", "NaN", "zeros"],
)
async def test_a_poisoned_item_fails_its_own_call_only(
    core: EngineCore, backend: FakeBackend, poison: int, kind: type[Exception]
) -> None:
    """The culprit's call names its index; neighbours of the same batch get their vectors."""
    backend.gate.clear()
    blocker = asyncio.create_task(core.submit(submission(item(5))))
    await asyncio.to_thread(backend.started.acquire)
    good = [asyncio.create_task(core.submit(submission(item(1, n)))) for n in (1, 2, 3)]
    bad = asyncio.create_task(
        core.submit(submission(item(4, 4, index=0), item(4, poison, index=1)))
    )
    await asyncio.sleep(0)
    backend.gate.set()
    with pytest.raises(kind) as caught:
        await bad
    assert getattr(caught.value, "input_index", None) == 1
    assert "secret" not in str(caught.value)
    for number, task in enumerate(good, start=1):
        np.testing.assert_array_equal((await task).vectors, [fake_vector([1, number])])
    await blocker


async def test_a_cancelled_caller_leaves_the_queue_and_delays_nobody(
    core: EngineCore, backend: FakeBackend, observer: RecordingObserver
) -> None:
    """The waiting items of a cancelled call never run, and other calls are served."""
    backend.gate.clear()
    blocker = asyncio.create_task(core.submit(submission(item(5))))
    await asyncio.to_thread(backend.started.acquire)
    gone = asyncio.create_task(core.submit(submission(item(7, 7, 7), item(7, 7))))
    stays = asyncio.create_task(core.submit(submission(item(8))))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    backend.gate.set()
    np.testing.assert_array_equal((await stays).vectors, [fake_vector([8])])
    await blocker
    assert observer.dropped["cancelled"] == 2
    assert sorted(n for batch in backend.batches for n in batch) == [1, 1]


async def test_a_caller_cancelled_while_its_batch_runs_harms_nobody(
    core: EngineCore, backend: FakeBackend
) -> None:
    """A result that nobody waits for any more is dropped, and the next call is served."""
    backend.gate.clear()
    gone = asyncio.create_task(core.submit(submission(item(5))))
    await asyncio.to_thread(backend.started.acquire)
    gone.cancel()
    await asyncio.wait([gone])
    backend.gate.set()
    np.testing.assert_array_equal(
        (await core.submit(submission(item(6)))).vectors, [fake_vector([6])]
    )


async def test_a_full_queue_refuses_with_a_retry_time(
    backend: FakeBackend, observer: RecordingObserver
) -> None:
    """Beyond the bound calls are refused at once; an empty queue takes even a large one."""
    core = fake_core(backend, observer, max_queue_tokens=4)
    backend.gate.clear()
    running = asyncio.create_task(core.submit(submission(item(1))))
    await asyncio.to_thread(backend.started.acquire)
    large = asyncio.create_task(core.submit(submission(item(*range(1, 9)))))
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError) as caught:
        await core.submit(submission(item(1)))
    assert 1 <= caught.value.retry_after_s <= 120
    assert observer.dropped["queue_full"] == 1
    backend.gate.set()
    await asyncio.gather(running, large)
    assert (await core.submit(submission(item(3)))).vectors.shape == (1, 8)
    core.close()


async def teach(
    core: EngineCore, backend: FakeBackend, clock: FakeClock, *, token_s: float
) -> None:
    """Run lone items of growing length whose tokens each seem to take so long."""
    for tokens in range(1, MIN_SAMPLES + 3):
        backend.gate.clear()
        call = asyncio.create_task(core.submit(submission(item(*range(tokens)))))
        await asyncio.to_thread(backend.started.acquire)
        clock.now_s += token_s * tokens
        backend.gate.set()
        await call


async def test_the_retry_time_follows_the_predicted_drain(backend: FakeBackend) -> None:
    """Slow batches and a long queue mean a later retry, within what clients honour."""
    clock = FakeClock()
    core = fake_core(backend, budget=1, max_queue_tokens=50, clock=clock)
    await teach(core, backend, clock, token_s=1.0)
    backend.gate.clear()
    running = asyncio.create_task(core.submit(submission(item(1))))
    await asyncio.to_thread(backend.started.acquire)
    queued = asyncio.create_task(core.submit(submission(item(*range(1, 41)))))
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError) as caught:
        await core.submit(submission(item(*range(1, 21))))
    assert (
        7 <= caught.value.retry_after_s <= 13
    )  # room for ten more tokens at one a second, jittered
    with pytest.raises(QueueFullError) as second:
        await core.submit(submission(item(*range(1, 21))))
    assert 22 <= second.value.retry_after_s <= 38  # behind the first one's twenty tokens
    backend.gate.set()
    await asyncio.gather(running, queued)
    core.close()


async def test_batches_are_cut_once_they_are_known_to_take_too_long(backend: FakeBackend) -> None:
    """The cap on their time holds the budget down, but not below what still runs well."""
    clock = FakeClock()
    observer = RecordingObserver()
    core = fake_core(backend, observer, budget=1000, clock=clock)
    await teach(core, backend, clock, token_s=100.0)  # the cap is 60 s
    backend.batches.clear()
    await core.submit(submission(*[item(1, 2, 3, 4)] * 100))
    # Later batches take no time at all on this clock, and teach that.
    assert sum(backend.batches[0]) <= 64
    assert observer.batches[0].prediction_error is None
    assert observer.batches[MIN_SAMPLES].prediction_error is not None
    core.close()


async def test_items_past_their_deadline_are_dropped_before_they_run(
    core: EngineCore, backend: FakeBackend, observer: RecordingObserver
) -> None:
    """The call gets DeadlineError and the backend never sees its items."""
    backend.gate.clear()
    blocker = asyncio.create_task(core.submit(submission(item(5))))
    await asyncio.to_thread(backend.started.acquire)
    late = asyncio.create_task(core.submit(submission(item(7, 7), deadline_s=time.monotonic() - 1)))
    await asyncio.sleep(0)
    backend.gate.set()
    with pytest.raises(DeadlineError):
        await late
    await blocker
    assert backend.batches == [[1]]
    assert observer.dropped["deadline"] == 1


async def test_a_query_passes_bulk_that_holds_every_worker() -> None:
    """The priority worker runs the query while the bulk batch is still running, and takes no bulk itself."""
    backend = FakeBackend()
    core = fake_core(backend, budget=4)
    backend.gate.clear()
    bulk = [item(n, n, n, n) for n in range(1, 6)]
    ingest = asyncio.create_task(core.submit(submission(*bulk, priority=Priority.BULK)))
    await asyncio.to_thread(backend.started.acquire)
    query = asyncio.create_task(core.submit(submission(item(9))))
    assert await asyncio.to_thread(backend.started.acquire, timeout=5), (
        "the query waits behind bulk"
    )
    assert not await asyncio.to_thread(backend.started.acquire, timeout=0.1)
    backend.gate.set()
    np.testing.assert_array_equal((await query).vectors, [fake_vector([9])])
    np.testing.assert_array_equal((await ingest).vectors, [fake_vector(i.ids) for i in bulk])
    core.close()


async def test_the_priority_worker_stays_out_of_interactive_floods() -> None:
    """Where no bulk runs, no more batches run at once than there are workers."""
    backend = FakeBackend()
    core = fake_core(backend, budget=1)
    backend.gate.clear()
    calls = [asyncio.create_task(core.submit(submission(item(n)))) for n in range(1, 5)]
    await asyncio.to_thread(backend.started.acquire)
    assert not await asyncio.to_thread(backend.started.acquire, timeout=0.1)
    backend.gate.set()
    await asyncio.gather(*calls)
    core.close()


async def test_close_resolves_every_waiter(backend: FakeBackend) -> None:
    """What runs is finished, what waits fails, nothing hangs, and nothing new is taken."""
    core = fake_core(backend, budget=1)
    backend.gate.clear()
    running = asyncio.create_task(core.submit(submission(item(1))))
    await asyncio.to_thread(backend.started.acquire)
    waiting = asyncio.create_task(core.submit(submission(item(2))))
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(core.close))
    await asyncio.sleep(0.05)
    backend.gate.set()
    await closing
    assert (await running).vectors.shape == (1, 8)
    with pytest.raises(NotReadyError):
        await waiting
    with pytest.raises(NotReadyError):
        await core.submit(submission(item(3)))
    assert backend.is_closed


async def test_a_backend_that_returns_too_few_rows_is_an_error(
    core: EngineCore, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts are checked, so a vector can never be another input's."""
    monkeypatch.setattr(backend, "run", lambda batch: RawOutput(pooled=np.ones((0, 8), np.float32)))
    with pytest.raises(BackendError):
        await core.submit(submission(item(1)))


async def test_an_observer_that_fails_does_not_end_the_worker(
    core: EngineCore, observer: RecordingObserver
) -> None:
    """A fault of the engine's own fails the calls of the batch; the next ones are served."""
    broken = pytest.MonkeyPatch()
    broken.setattr(observer, "batch_done", lambda *_: 1 / 0)
    with pytest.raises(BackendError):
        await core.submit(submission(item(1)))
    broken.undo()
    assert (await core.submit(submission(item(2)))).vectors.shape == (1, 8)


async def test_short_memory_shrinks_batches_and_everyone_is_served(
    core: EngineCore, backend: FakeBackend, observer: RecordingObserver
) -> None:
    """The batch is split until it fits; the budget halves and grows again."""
    items = [item(*range(1, 9), HUGE_ID if n == 3 else 9, index=n) for n in range(12)]
    raw = await core.submit(submission(*items))
    for vector, sent in zip(raw.vectors, items, strict=True):
        np.testing.assert_array_equal(vector, fake_vector(sent.ids))
    assert observer.memory_shortages >= 1
    assert max(len(batch) for batch in backend.batches[-3:]) < 12


async def test_an_item_for_which_memory_is_short_waits_until_it_is_alone(
    core: EngineCore, backend: FakeBackend, observer: RecordingObserver
) -> None:
    """An item that fits not even alone fails its own call only, retriably; the others get their vectors."""
    backend.rows_in_memory = 0
    results = await asyncio.gather(
        core.submit(submission(item(HUGE_ID, 1))),
        core.submit(submission(item(1, 2))),
        return_exceptions=True,
    )
    assert isinstance(results[0], MemoryShortError)
    assert not isinstance(results[1], BaseException)
    assert observer.dropped["failed"] == 1
    backend.rows_in_memory = 1
    raw = await core.submit(submission(item(HUGE_ID, 1)))
    np.testing.assert_array_equal(raw.vectors[0], fake_vector([HUGE_ID, 1]))


async def test_health_tells_of_a_batch_that_hangs(core: EngineCore, backend: FakeBackend) -> None:
    """The core's health says by how much a batch is over its time, and 0 where all is well."""
    assert core.health(time.monotonic(), 0.05).overdue_s == 0
    backend.gate.clear()
    task = asyncio.create_task(core.submit(submission(item(1, 2))))
    await asyncio.to_thread(backend.started.acquire)
    now = time.monotonic()
    assert core.health(now, 60.0).overdue_s == 0
    assert core.health(now + 100, 60.0).overdue_s == pytest.approx(40, abs=1)
    backend.gate.set()
    await task
    while any(
        worker.running for worker in core.workers
    ):  # a worker answers a moment before it is free
        await asyncio.sleep(0.001)
    assert core.health(time.monotonic() + 100, 60.0).overdue_s == 0


async def test_a_lost_device_is_told_at_once_and_its_calls_may_come_again(
    core: EngineCore, observer: RecordingObserver
) -> None:
    """Calls fail as not ready and no batch is split: the next try would find no device either."""
    with pytest.raises(NotReadyError, match="GPU was lost"):
        await core.submit(submission(item(1, 2), item(LOST_ID), item(3)))
    assert core.health(time.monotonic(), 60.0).overdue_s >= LOST_S
    assert [stats.outcome for stats in observer.batches] == ["error"]


async def test_a_batch_never_costs_more_than_memory_holds(observer: RecordingObserver) -> None:
    """Whatever budget is set, no batch costs more than the backend says that memory holds."""
    backend = FakeBackend(replace(FAKE_INFO, max_cost=10.0))
    core = fake_core(backend, observer, budget=1000)
    await core.submit(submission(*[item(*range(1, 5), index=n) for n in range(12)]))
    core.close()
    assert max(map(sum, backend.batches)) <= 10


async def test_a_wait_that_would_be_too_long_is_refused_before_and_after_tokenizing(
    backend: FakeBackend, observer: RecordingObserver
) -> None:
    """Calls on their way count as waiting, refusals are counted by reason, and room comes back with the block's end."""
    clock = FakeClock()
    core = fake_core(backend, observer, budget=1, max_queue_wait_s=30.0, clock=clock)
    await teach(core, backend, clock, token_s=1.0)
    options = ItemOptions()
    with (
        core.expecting(25, options),
        pytest.raises(QueueFullError, match="longest wait is 30 s"),
        core.expecting(20, options),
    ):
        pytest.fail("it would stand behind 25 seconds of work, which may take 35")
    with core.expecting(20, options):
        pass
    backend.gate.clear()
    running = asyncio.create_task(core.submit(submission(item(1))))
    await asyncio.to_thread(backend.started.acquire)
    queued = asyncio.create_task(core.submit(submission(item(*range(1, 41)))))
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError, match="longest wait is 30 s"):
        await core.submit(submission(item(1)))
    assert observer.refused == {"wait_too_long": 2}
    backend.gate.set()
    await asyncio.gather(running, queued)
    core.close()
