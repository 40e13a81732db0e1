"""Which of two sessions runs a batch: the wide one only for a lone text while nothing else runs."""

import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from app.engine.collate import collate
from app.engine.lone import LoneBackend
from app.engine.types import Batch, Layout
from app.errors import BackendError
from tests.fakes import BAD_ID, FakeBackend, fake_vector, item


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


def test_a_lone_text_runs_wide_several_do_not(both: LoneBackend) -> None:
    """Several rows are split over workers already."""
    pooled: NDArray[np.float32] | None = both.run(batch((1, 2, 3))).pooled
    assert pooled is not None
    np.testing.assert_array_equal(pooled[0], fake_vector([1, 2, 3]))
    both.run(batch((1,), (2, 3)))
    assert seen(both) == (1, 1)


def test_a_text_beside_another_run_stays_narrow(both: LoneBackend) -> None:
    """Two wide runs would fight for the cores."""
    wide = both.wide
    assert isinstance(wide, FakeBackend)
    wide.gate.clear()
    first = threading.Thread(target=both.run, args=(batch((1,)),))
    first.start()
    assert wide.started.acquire(timeout=5)
    both.run(batch((2,)))
    assert seen(both)[0] == 1
    wide.gate.set()
    first.join(5)
    both.run(batch((3,)))
    assert seen(both) == (1, 2)


def test_a_failure_is_passed_on_and_forgotten(both: LoneBackend) -> None:
    """The next lone text runs wide again."""
    with pytest.raises((BackendError, RuntimeError)):
        both.run(batch((BAD_ID,)))
    both.run(batch((1,)))
    assert seen(both)[0] == 0


def test_it_is_a_backend_like_its_parts(both: LoneBackend) -> None:
    """What it declares is what both declare; both are closed."""
    assert (both.layout, both.provider) == (both.narrow.layout, both.narrow.provider)
    assert both.hidden_size == both.narrow.hidden_size
    assert both.cost(np.array([3, 4])) == both.narrow.cost(np.array([3, 4]))
    both.close()
    for part in (both.narrow, both.wide):
        assert isinstance(part, FakeBackend)
        assert part.is_closed
