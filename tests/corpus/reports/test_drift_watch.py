"""Drift on a running server: found where texts have moved, and not where they have not."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from nestvec.corpus.reports import drift_watch
from nestvec.corpus.reports.drift_watch import MIN_SAMPLE, DriftWatch
from nestvec.corpus.reports.kinds.drift import energy_test
from nestvec.engine.front.vector_sampler import VectorSampler
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.types import EmbedCall

from tests.support.served import SPEC, Served, serve_fake

COLOURS = ("red", "green", "blue", "the", "of", "and")
NUMBERS = ("one", "two", "three", "four", "the", "of")


def texts(words: Sequence[str], count: int, seed: int) -> list[str]:
    """Return texts of random words."""
    drawn = random.Random(seed)
    return [" ".join(drawn.choices(words, k=drawn.randint(3, 6))) for _ in range(count)]


class Findings:
    """What was told of tests."""

    def __init__(self) -> None:
        self.found: list[tuple[str, float, float]] = []

    def drift_tested(self, model: str, *, distance: float, p: float) -> None:
        """Note a test."""
        self.found.append((model, distance, p))


@pytest.fixture
def served(tiny_folder: Path) -> Iterator[Served]:
    """A service over a fake model."""
    parts = serve_fake(tiny_folder / "tokenizer.json")
    yield parts
    parts.service.close()


def watch(served: Served, reference: Sequence[str]) -> tuple[DriftWatch, Findings]:
    """Return a watch that samples a service, and what it tells."""
    tests = Findings()
    sampler = VectorSampler(size=120, random=np.random.default_rng(3))
    made = DriftWatch(served.service, sampler, reference, tests, 900, pause_s=0)
    served.service.sampler = made.sampler
    return made, tests


async def test_drift_is_found_where_texts_have_moved_and_only_there(served: Served) -> None:
    """One watch, three windows: the same kind of texts, another kind, and the same again."""
    made, tests = watch(served, texts(COLOURS, 300, 1))
    for words, seed in ((COLOURS, 2), (NUMBERS, 3), (COLOURS, 4)):
        await served.service.embed(EmbedCall(texts(words, 150, seed)))
        await made.check()
    assert [name for name, _, _ in tests.found] == [SPEC.name] * 3
    first, moved, again = tests.found
    assert moved[2] == pytest.approx(0.001)
    assert min(first[2], again[2]) > 0.01
    assert moved[1] > 4 * max(first[1], again[1])


async def test_a_window_goes_on_until_it_holds_enough(served: Served) -> None:
    """Few vectors say too little; what was sampled counts on, and a test begins the next window."""
    made, tests = watch(served, texts(COLOURS, MIN_SAMPLE, 1))
    await served.service.embed(EmbedCall(texts(COLOURS, MIN_SAMPLE - 1, 2)))
    await made.check()
    assert not tests.found
    await served.service.embed(EmbedCall(["red"]))
    await made.check()
    await made.check()
    assert len(tests.found) == 1


async def test_the_reference_is_embedded_once_and_is_no_sample(served: Served) -> None:
    """Also where a test could not be made at first: the window waits for it."""
    made, tests = watch(served, [*texts(COLOURS, 150, 1), "red " * 40])
    await served.service.embed(EmbedCall(texts(COLOURS, 120, 2)))
    limits, served.service.limits = served.service.limits, ServiceLimits(max_tokens=4)
    await made.check()
    assert not tests.found
    served.service.limits = limits
    await made.check()
    assert len(tests.found) == 1
    assert not made.sampler.spaces
    runs = len(served.backend.batches)
    await served.service.embed(EmbedCall(texts(COLOURS, 120, 3)))
    (space,) = made.sampler.spaces.values()
    assert space.reservoir.seen == 120
    between = len(served.backend.batches)
    await made.check()
    assert len(served.backend.batches) == between > runs


async def test_a_test_that_fails_does_not_end_the_watch(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one has its turn; where nobody watches any more nothing is sampled."""
    made, tests = watch(served, texts(COLOURS, 150, 1))
    served.service.sampler = None
    made.interval_s = 0
    calls = 0
    tested = asyncio.Event()

    def fail_once(*arguments: object) -> tuple[float, float]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("red green blue")
        return energy_test(*arguments)  # type: ignore[arg-type] # what it was called with

    monkeypatch.setattr(drift_watch, "energy_test", fail_once)
    monkeypatch.setattr(tests, "drift_tested", lambda *_, **__: tested.set())
    running = asyncio.create_task(made.run())
    async with asyncio.timeout(20):
        while not tested.is_set():
            await served.service.embed(EmbedCall(texts(COLOURS, 110, 2)))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert calls >= 2
    assert served.service.sampler is None
