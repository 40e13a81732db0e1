"""Which of two sessions runs a batch: the wide one only for a lone text while nothing else runs."""

import asyncio

import numpy as np
import pytest
from nestvec.backends.latency import LatencyBackend
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.core.engine_core import EngineCore
from nestvec.engine.types import Batch, Layout
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import BackendError

from tests.support.fakes import BAD_ID, FakeBackend, fake_core, fake_vector, item, submission


def batch(*texts: tuple[int, ...]) -> Batch:
    """Collate a packed batch of texts of these ids."""
    return collate([item(*ids) for ids in texts], Layout.PACKED)


@pytest.fixture
def both() -> LatencyBackend:
    """A latency backend over two fakes."""
    return LatencyBackend(FakeBackend(), FakeBackend())


def seen(backend: LatencyBackend) -> tuple[int, int]:
    """Return the numbers of batches that the narrow and the wide backend ran."""
    narrow, wide = backend.narrow, backend.wide
    assert isinstance(narrow, FakeBackend)
    assert isinstance(wide, FakeBackend)
    return len(narrow.batches), len(wide.batches)


def test_only_batches_marked_as_lone_run_wide(both: LatencyBackend) -> None:
    """Both backends give the same vectors."""
    for is_lone in (True, False):
        vectors = raw_vectors(both, [item(1, 2, 3)], Pooler("mean"), is_lone=is_lone)
        np.testing.assert_array_equal(vectors[0], fake_vector([1, 2, 3]))
    both.run(batch((1,), (2, 3)))
    assert seen(both) == (2, 1)


def test_short_texts_stay_narrow_where_the_wide_backend_is_slow_to_start() -> None:
    """A wide session that reads unpacked weights pays for long texts only."""
    both = LatencyBackend(FakeBackend(), FakeBackend(), wide_min_tokens=3)
    for tokens in (2, 3, 4):
        raw_vectors(both, [item(*range(1, tokens + 1))], Pooler("mean"), is_lone=True)
    assert seen(both) == (1, 2)


async def until_free(core: EngineCore) -> None:
    """Wait until no worker is busy: a worker answers a moment before it is free."""
    while core.queue.dispatcher._busy:
        await asyncio.sleep(0.001)


async def test_the_core_marks_a_text_that_is_alone(both: LatencyBackend) -> None:
    """A text is alone if no other is in its call, runs or waits; a failure changes nothing for the next."""
    core = fake_core(both, workers=2, budget=4)
    try:
        await core.submit(submission(item(1, 2)))
        assert seen(both) == (0, 1)
        await core.submit(submission(*[item(1, 2, 3, 4) for _ in range(40)]))
        assert seen(both)[0] >= 39
        await until_free(core)
        wide = seen(both)[1]
        with pytest.raises(BackendError):
            await core.submit(submission(item(BAD_ID)))
        await until_free(core)
        await core.submit(submission(item(1)))
        assert seen(both)[1] == wide + 1 + 1
    finally:
        core.close()


async def test_a_text_beside_a_running_one_stays_narrow(both: LatencyBackend) -> None:
    """Otherwise two wide runs would compete for the cores."""
    wide = both.wide
    assert isinstance(wide, FakeBackend)
    core = fake_core(both, workers=2)
    try:
        wide.gate.clear()
        first = asyncio.create_task(core.submit(submission(item(1))))
        assert await asyncio.to_thread(wide.started.acquire, timeout=5)
        await core.submit(submission(item(2)))
        assert seen(both)[0] == 1
        wide.gate.set()
        await first
    finally:
        wide.gate.set()
        core.close()


def test_it_is_a_backend_like_its_parts(both: LatencyBackend) -> None:
    """It declares what its parts declare, and closing it closes both."""
    assert both.info == both.narrow.info
    assert both.cost(np.array([3, 4])) == both.narrow.cost(np.array([3, 4]))
    both.close()
    for part in (both.narrow, both.wide):
        assert isinstance(part, FakeBackend)
        assert part.is_closed
