"""Which of two sessions runs a batch: the wide one only for a lone text while nothing else runs."""

import asyncio

import numpy as np
import pytest
from nestvec.backends.latency import LoneBackend
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.core.collate import collate
from nestvec.engine.core.engine_core import EngineCore
from nestvec.engine.types import Batch, Layout
from nestvec.engine.vectors.pooler import Outputs
from nestvec.errors import BackendError

from tests.support.fakes import BAD_ID, FakeBackend, fake_core, fake_vector, item


def batch(*texts: tuple[int, ...]) -> Batch:
    """Of these ids."""
    return collate([item(*ids) for ids in texts], Layout.PACKED)


@pytest.fixture
def both() -> LoneBackend:
    """Over two fakes."""
    return LoneBackend(FakeBackend(), FakeBackend())


def seen(backend: LoneBackend) -> tuple[int, int]:
    """Batches that the narrow and the wide one ran."""
    narrow, wide = backend.narrow, backend.wide
    assert isinstance(narrow, FakeBackend)
    assert isinstance(wide, FakeBackend)
    return len(narrow.batches), len(wide.batches)


def test_only_what_is_marked_as_lone_runs_wide(both: LoneBackend) -> None:
    """And gives the same."""
    for is_lone in (True, False):
        found = raw_vectors(both, [item(1, 2, 3)], Outputs("mean"), is_lone=is_lone)
        np.testing.assert_array_equal(found[0], fake_vector([1, 2, 3]))
    both.run(batch((1,), (2, 3)))
    assert seen(both) == (2, 1)


async def until_free(core: EngineCore) -> None:
    """A worker answers a moment before it is free."""
    while core._desk._busy:
        await asyncio.sleep(0.001)


async def test_the_core_marks_a_text_that_is_alone(both: LoneBackend) -> None:
    """Not one of several, not one beside others that run or wait; a failure changes nothing for the next."""
    core = fake_core(both, workers=2, budget=4)
    try:
        await core.submit([item(1, 2)])
        assert seen(both) == (0, 1)
        await core.submit([item(1, 2, 3, 4) for _ in range(40)])
        assert seen(both)[0] >= 39
        await until_free(core)
        wide = seen(both)[1]
        with pytest.raises(BackendError):
            await core.submit([item(BAD_ID)])
        await until_free(core)
        await core.submit([item(1)])
        assert seen(both)[1] == wide + 1 + 1
    finally:
        core.close()


async def test_a_text_beside_a_running_one_stays_narrow(both: LoneBackend) -> None:
    """Two wide runs would fight for the cores."""
    wide = both.wide
    assert isinstance(wide, FakeBackend)
    core = fake_core(both, workers=2)
    try:
        wide.gate.clear()
        first = asyncio.create_task(core.submit([item(1)]))
        assert await asyncio.to_thread(wide.started.acquire, timeout=5)
        await core.submit([item(2)])
        assert seen(both)[0] == 1
        wide.gate.set()
        await first
    finally:
        wide.gate.set()
        core.close()


def test_it_is_a_backend_like_its_parts(both: LoneBackend) -> None:
    """What it declares is what both declare; both are closed."""
    assert (both.layout, both.provider) == (both.narrow.layout, both.narrow.provider)
    assert both.hidden_size == both.narrow.hidden_size
    assert both.cost(np.array([3, 4])) == both.narrow.cost(np.array([3, 4]))
    both.close()
    for part in (both.narrow, both.wide):
        assert isinstance(part, FakeBackend)
        assert part.is_closed
