"""Samples of the vectors that calls are answered with: uniform, bounded, of nothing but what may be compared."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.front.vector_sampler import VectorReservoir, VectorSampler
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import EmbedCall, FloatArray, OutputKind, Truncation

from tests.support.fakes import HIDDEN, fake_vector
from tests.support.labelled_maps import concept_map
from tests.support.served import SPEC, Served, ServedOptions, serve_fake


def numbered(first: int, count: int) -> FloatArray:
    """Return vectors of any length whose angle is their number in hundredths of a radian."""
    numbers = np.arange(first, first + count)
    rows = np.stack([np.cos(numbers / 100), np.sin(numbers / 100)], axis=1) * (1 + numbers[:, None])
    return rows.astype(np.float32)


def numbers_of(vectors: FloatArray) -> list[int]:
    """Return the numbers of such vectors."""
    angles: list[int] = np.rint(np.arctan2(vectors[:, 1], vectors[:, 0]) * 100).astype(int).tolist()
    return angles


def test_every_vector_is_in_the_sample_with_the_same_probability() -> None:
    """However they come: alone, a few at once, or more than the sample holds."""
    random = np.random.default_rng(5)
    counts, trials = np.zeros(150, int), 700
    for _ in range(trials):
        reservoir = VectorReservoir(2, 15, random)
        start = 0
        for count in (1, 7, 30, 2, 60, 50):
            reservoir.add(numbered(start, count))
            start += count
        held = numbers_of(reservoir.vectors)
        assert len(set(held)) == 15
        counts[held] += 1
    # Each is in a tenth of the samples: five standard deviations of that, for 150 looks.
    assert np.abs(counts / trials - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / trials)


def test_a_sample_holds_unit_vectors_and_no_more_than_its_size() -> None:
    """Before it is full it holds them all; the vectors themselves are left as they are."""
    reservoir = VectorReservoir(2, 15, np.random.default_rng(5))
    few, many = numbered(0, 4), numbered(4, 100)
    before = many.copy()
    reservoir.add(few)
    assert numbers_of(reservoir.vectors) == [0, 1, 2, 3]
    reservoir.add(many)
    assert reservoir.vectors.shape == (15, 2)
    assert np.linalg.norm(reservoir.vectors, axis=1) == pytest.approx(np.ones(15), abs=1e-3)
    assert (many == before).all()
    assert reservoir.seen == 104


@pytest.fixture
def served(tiny_folder: Path) -> Iterator[Served]:
    """A service with a cache and a map."""
    options = ServedOptions(cache=VectorCache(1_000_000), maps=(concept_map(),))
    parts = serve_fake(tiny_folder / "tokenizer.json", options)
    yield parts
    parts.service.close()


async def sampled(served: Served, role: str | None, *calls: EmbedCall) -> int:
    """Return how many vectors a new sampler has seen of calls."""
    served.service.sampler = sampler = VectorSampler(role)
    for call in calls:
        await served.service.embed(call)
    return sum(space.reservoir.seen for space in sampler.spaces.values())


async def test_what_is_sampled_is_what_the_model_gave(served: Served) -> None:
    """At its full size and unit length, from the cache or not, whatever the caller has asked for."""
    served.service.sampler = sampler = VectorSampler()
    for options in ({}, {"dimensions": 4}, {"normalize": False}):
        await served.service.embed(EmbedCall(["alpha beta"], **options))
    (encoded,) = served.tokenizer.encode_texts(["alpha beta"], TokenizeOptions(Truncation.END))
    expected = fake_vector(encoded.ids)
    expected /= np.linalg.norm(expected)
    (space,) = sampler.spaces
    taken = sampler.take(space)
    assert space == SPEC.space
    assert taken == pytest.approx(np.stack([expected] * 3), abs=1e-3)
    assert not sampler.spaces


@pytest.mark.parametrize(
    "options",
    [
        {"map_id": "topics"},
        {"layers": (2,), "map_id": ""},
        {"uses_cache": False},
        {"groups": (2,)},
        {"chunks": (2,)},
        {"prompt": "literal: "},
        {"prompt_name": "query"},
        {"kind": OutputKind.TOKENS},
    ],
)
async def test_vectors_that_cannot_be_compared_are_left_out(
    served: Served, options: dict[str, Any]
) -> None:
    """Those of other spaces, of several texts, behind other prompts, or which nobody is to keep."""
    call = EmbedCall(["alpha", "beta"], **options)
    assert await sampled(served, None, EmbedCall(["gamma", "delta"]), call) == 2


async def test_without_a_cache_cut_vectors_are_left_out(tiny_folder: Path) -> None:
    """The core then gives the columns that are asked for, and no more."""
    parts = serve_fake(tiny_folder / "tokenizer.json")
    try:
        calls = EmbedCall(["alpha"], dimensions=4), EmbedCall(["alpha"], dimensions=HIDDEN)
        assert await sampled(parts, None, *calls) == 1
    finally:
        parts.service.close()


async def test_a_role_samples_the_texts_behind_its_prompt(served: Served) -> None:
    """However the call has named it."""
    calls = (
        EmbedCall(["alpha"], prompt_role="query"),
        EmbedCall(["alpha"], prompt_name="query"),
        EmbedCall(["alpha"], prompt_role="passage"),
        EmbedCall(["alpha"]),
    )
    assert await sampled(served, "query", *calls) == 2
    assert await sampled(served, "passage", *calls) == 1
