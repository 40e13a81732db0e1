"""Pictures in their own shapes: how many patches they become, how they are packed, counted and known."""

import asyncio
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.front import picture_inputs
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.pictures.decoding import PictureBounds, decode_picture
from nestvec.engine.pictures.naflex import (
    FEWEST_TOKENS,
    MAX_PATCHES,
    MIN_PATCHES,
    NaFlexTower,
    with_patches,
)
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.pictures.preprocessing import PictureTower
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import Batch, EmbedCall, Item, ItemOptions, Layout, RawOutput
from nestvec.errors import RequestTooLargeError, UnsupportedError
from PIL import Image

from tests.engine.pictures.forms import colours, encoded
from tests.support.fakes import fake_vector
from tests.support.served import SPEC, Served, ServedOptions, serve_fake

MOST_PIXELS = 80_000_000  # that an operator may allow a picture
TOWER = NaFlexTower(patch_size=8, max_patches=31, resample=2, token_cost=2.0)
WITH_PICTURES = dataclasses.replace(SPEC, pictures=TOWER)
# A square, one five times as high as wide, and a line: of 25, 20 and 31 patches.
SIZES = ((64, 64), (30, 150), (200, 3))
PICTURES = tuple(Picture(encoded(colours(*size), "PNG")) for size in SIZES)
COUNTS = tuple(int(np.prod(TOWER.grid(*size))) for size in SIZES)


@pytest.fixture
def served(tiny_folder: Path) -> Iterator[Served]:
    """A service over a fake model that takes pictures in their own shapes."""
    parts = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(spec=WITH_PICTURES))
    yield parts
    parts.service.close()


def embed(served: Served, inputs: Sequence[Any], **fields: Any) -> EmbedResult:
    """Embed inputs by a service."""
    return asyncio.run(served.service.embed(EmbedCall(inputs, normalize=False, **fields)))


@given(
    shorter=st.integers(1, 8944),
    ratio=st.floats(1, 200),
    side=st.integers(1, 64),
    most=st.integers(MIN_PATCHES, MAX_PATCHES),
)
def test_grids_keep_to_the_budget(shorter: int, ratio: float, side: int, most: int) -> None:
    """Whatever shape a picture has that is read, its patches are within the budget; turned it has as many."""
    longer = min(int(shorter * ratio), MOST_PIXELS // shorter)
    tower = NaFlexTower(side, most, 2)
    rows, columns = tower.grid(shorter, longer)
    assert FEWEST_TOKENS <= rows * columns <= most
    assert tower.grid(longer, shorter) == (columns, rows)


@pytest.mark.parametrize("most", [MIN_PATCHES, 256, MAX_PATCHES])
def test_a_line_of_pixels_is_a_line_of_patches(most: int) -> None:
    """A longer side of sixteen million times the shorter one is one row of no more than the budget."""
    tower = NaFlexTower(16, most, 2)
    rows, columns = tower.grid(16_000_000, 1)
    assert rows == 1
    assert FEWEST_TOKENS <= columns <= most


def test_a_picture_of_so_many_pixels_is_not_resampled() -> None:
    """Pixels of a picture that fits its patches are its own, cut into patches from left to right, row by row."""
    image = colours(24, 16)
    tower = NaFlexTower(8, 16, 2)
    pixels = NaFlexTower.arranged(tower, np.asarray(image))
    assert pixels.shape == (2, 3, 8, 8, 3)
    whole = np.asarray(image)
    for row in range(2):
        for column in range(3):
            patch = whole[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            assert (pixels[row, column] == patch).all()


def test_batches_have_no_padding() -> None:
    """Patches of all pictures stand one behind the other, with the shape of each picture beside them."""
    pixels = [TOWER.pixels(colours(*size)) for size in SIZES]
    items = [Item(TOWER.ids(each), n, pixels=each) for n, each in enumerate(pixels)]
    batch = collate(items, Layout.PACKED, [ItemOptions(are_pictures=True)] * len(items))
    assert batch.arrays["pixels"].shape == (sum(COUNTS), 8, 8, 3)
    assert batch.arrays["grids"].tolist() == [list(each.shape[:2]) for each in pixels]
    assert batch.lengths.tolist() == list(COUNTS)
    start = 0
    for each in pixels:
        patches = each.reshape(-1, 8, 8, 3)
        assert (batch.arrays["pixels"][start : start + len(patches)] == patches).all()
        start += len(patches)


def test_pictures_of_one_colour_are_told_apart_by_their_shapes() -> None:
    """Their bytes are the same, and their vectors are not: positions differ."""
    tower = NaFlexTower(patch_size=8, max_patches=16, resample=2)
    black = [tower.pixels(Image.new("RGB", size)) for size in ((32, 32), (64, 16), (16, 64))]
    assert len({each.tobytes() for each in black}) == 1
    assert len({tower.ids(each).tobytes() for each in black}) == len(black)


def test_a_picture_counts_as_its_own_patches(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In usage, in quotas and in batches, where pictures of several shapes run together."""
    batches: list[list[int]] = []
    run = served.backend.run

    def note(batch: Batch) -> RawOutput:
        if batch.are_pictures:
            batches.append(batch.lengths.tolist())
            assert batch.arrays["grids"].prod(axis=1).tolist() == batch.lengths.tolist()
        return run(batch)

    admitted: list[int] = []

    async def admit(tokens: int) -> None:
        admitted.append(tokens)

    monkeypatch.setattr(served.backend, "run", note)
    inputs = [PICTURES[0], "alpha beta", *PICTURES[1:]]
    result = embed(served, inputs, admit=admit)
    assert len(set(COUNTS)) == len(COUNTS)
    assert [result.input_tokens[n] for n in (0, 2, 3)] == list(COUNTS)
    assert admitted == [sum(COUNTS) + result.input_tokens[1]]
    assert sorted(count for batch in batches for count in batch) == sorted(COUNTS)
    for place, size in zip((0, 2, 3), SIZES, strict=True):
        ids = TOWER.ids(TOWER.pixels(colours(*size)))
        assert np.allclose(result.vectors[place], fake_vector(ids))


@pytest.mark.parametrize(("most", "is_refused"), [(sum(COUNTS), False), (sum(COUNTS) - 1, True)])
def test_a_request_is_bounded_by_the_patches_it_has(
    tiny_folder: Path,
    most: int,
    is_refused: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Not by those that it might have had."""
    assert most < len(COUNTS) * TOWER.tokens
    options = ServedOptions(spec=WITH_PICTURES, limits=ServiceLimits(max_tokens=most))
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    try:
        if is_refused:
            with pytest.raises(RequestTooLargeError, match=f"max {most} tokens"):
                embed(served, PICTURES)
        else:
            assert embed(served, PICTURES).input_tokens == COUNTS
    finally:
        served.service.close()


def test_more_pictures_than_could_fit_are_refused_before_they_are_decoded(
    tiny_folder: Path,
) -> None:
    """Even the smallest picture has some patches."""
    options = ServedOptions(spec=WITH_PICTURES, limits=ServiceLimits(max_tokens=11))
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    with pytest.raises(RequestTooLargeError, match="12 tokens"):
        embed(served, [Picture(b"no picture")] * 3)
    served.service.close()


def test_the_cache_knows_shapes(tiny_folder: Path) -> None:
    """A picture is found again in whatever file, and none is taken for one of the same bytes in another shape."""
    cache = VectorCache(2**20)
    options = ServedOptions(spec=WITH_PICTURES, cache=cache)
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    wide, high = Image.new("RGB", (64, 16)), Image.new("RGB", (16, 64))
    embed(served, [Picture(encoded(wide, "PNG"))])
    embed(served, [Picture(encoded(wide, "BMP")), Picture(encoded(high, "PNG"))])
    served.service.close()
    counts = cache.counts_of(WITH_PICTURES.name)
    assert (counts.hits, counts.misses) == (1, 2)


def test_a_call_may_say_how_many_patches(served: Served) -> None:
    """More of a picture, or less; the model's own number where it says none."""
    own = embed(served, PICTURES[:1]).input_tokens[0]
    counts = {
        most: embed(served, PICTURES[:1], picture_patches=most).input_tokens[0]
        for most in (16, 31, 400)
    }
    assert counts == {16: 16, 31: own, 400: 400}


def test_a_call_holds_no_more_pixels_than_memory_allows(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a call asks for counts, not what the model has by default."""
    monkeypatch.setattr(picture_inputs, "MAX_PIXEL_BYTES", 4 * TOWER.pixel_bytes)
    assert len(embed(served, PICTURES).vectors) == len(PICTURES)
    with pytest.raises(RequestTooLargeError, match="at most 2 pictures"):
        embed(served, PICTURES, picture_patches=2 * TOWER.max_patches)


def test_pictures_of_one_size_have_as_many_patches_as_they_have(tiny_folder: Path) -> None:
    """A number for them is refused where there is a picture, and says nothing of texts."""
    square = PictureTower(size=16, tokens=5, is_square=True, resized_side=16, resample=2)
    options = ServedOptions(spec=dataclasses.replace(SPEC, pictures=square))
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    try:
        assert len(embed(served, ["alpha"], picture_patches=64).vectors) == 1
        with pytest.raises(UnsupportedError, match="as its folder says") as refused:
            embed(served, PICTURES[:1], picture_patches=64)
        assert refused.value.param == "mm_processor_kwargs"
    finally:
        served.service.close()
    assert with_patches(square, 64) is square
    assert with_patches(None, 64) is None
    assert with_patches(TOWER, 64) == dataclasses.replace(TOWER, max_patches=64)
    assert with_patches(TOWER, None) is TOWER


def test_pictures_beyond_the_budget_are_not_decoded(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once those before have more tokens than a request may, which only their sizes tell, the rest is left alone."""
    decoded: list[int] = []

    def note(data: bytes, bounds: PictureBounds) -> Any:
        decoded.append(len(data))
        return decode_picture(data, bounds)

    monkeypatch.setattr(picture_inputs, "decode_picture", note)
    limits = ServiceLimits(max_tokens=4 * COUNTS[0])
    options = ServedOptions(spec=WITH_PICTURES, limits=limits)
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    pictures = PICTURES[:1] * (limits.max_tokens // FEWEST_TOKENS)
    with pytest.raises(RequestTooLargeError, match=f"max {limits.max_tokens} tokens"):
        embed(served, pictures)
    served.service.close()
    assert len(decoded) < len(pictures)
