"""Calls with pictures among their inputs: order, batches, counts, refusals, the cache, and where the work is done."""

import asyncio
import dataclasses
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.core.engine_core import EngineCore
from nestvec.engine.front import picture_inputs
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.pictures.decoding import PictureBounds, decode_picture
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.pictures.preprocessing import PictureTower, content_ids
from nestvec.engine.results import EmbedResult
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import Batch, EmbedCall, FloatArray, OutputKind, RawOutput, Truncation
from nestvec.errors import InputError, InputTooLongError, RequestTooLargeError, UnsupportedError

from tests.engine.pictures.forms import FORMS, colours, encoded
from tests.support.fakes import fake_vector
from tests.support.served import SPEC, Served, ServedOptions, serve_fake

TOWER = PictureTower(size=16, tokens=5, is_square=True, resized_side=16, resample=2, token_cost=2.0)
WITH_PICTURES = dataclasses.replace(SPEC, pictures=TOWER)
PNG, JPEG, WIDE = (Picture(FORMS[name]()) for name in ("png", "jpeg", "wide"))


@pytest.fixture
def served(tiny_folder: Path) -> Iterator[Served]:
    """A service over a fake model of two towers."""
    parts = serve_fake(tiny_folder / "tokenizer.json", ServedOptions(spec=WITH_PICTURES))
    yield parts
    parts.service.close()


def embed(served: Served, inputs: Sequence[Any], **fields: Any) -> EmbedResult:
    """Embed inputs by a service."""
    return asyncio.run(served.service.embed(EmbedCall(inputs, normalize=False, **fields)))


def vector_of(served: Served, value: Any) -> FloatArray:
    """Return the vector that the fake model gives for a text or a picture."""
    if isinstance(value, Picture):
        pixels = TOWER.pixels(decode_picture(value.data, PictureBounds()))
        return fake_vector(content_ids(pixels, TOWER.tokens))
    (text,) = served.tokenizer.encode_texts([value], TokenizeOptions(Truncation.END))
    return fake_vector(text.ids)


def test_vectors_come_in_the_order_of_the_inputs(served: Served) -> None:
    """Texts and pictures may stand in any order; a picture counts as the tokens that it runs as."""
    inputs = [PNG, "alpha beta", JPEG, WIDE, "one", PNG]
    result = embed(served, inputs)
    assert np.allclose(result.vectors, [vector_of(served, value) for value in inputs], atol=1e-6)
    assert [result.input_tokens[n] for n in (0, 2, 3, 5)] == [5] * 4
    assert result.input_tokens[1] == 4


def test_pictures_alone_need_no_text(served: Served) -> None:
    """A call may have pictures only; a prompt stands before texts, of which there are none."""
    result = embed(served, [JPEG, WIDE], prompt_role="query")
    assert np.allclose(result.vectors, [vector_of(served, each) for each in (JPEG, WIDE)])


def test_no_batch_has_texts_and_pictures(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tower has batches of its own, and a picture's pixels come with it."""
    seen: list[tuple[bool, list[int]]] = []
    run = served.backend.run

    def note(batch: Batch) -> RawOutput:
        seen.append((batch.are_pictures, batch.lengths.tolist()))
        if batch.are_pictures:
            pixels = batch.arrays["pixels"]
            ids = np.concatenate([content_ids(each, TOWER.tokens) for each in pixels])
            assert (ids == batch.arrays["ids"]).all()
        return run(batch)

    monkeypatch.setattr(served.backend, "run", note)
    embed(served, ["alpha beta gamma", PNG, JPEG, "one two three"])
    assert {are for are, _ in seen} == {True, False}
    # Texts of as many tokens as a picture, so that their lengths alone would let them share a batch.
    assert [lengths for are, lengths in seen if not are] == [[5, 5]]


def test_a_model_of_texts_refuses_pictures(tiny_folder: Path) -> None:
    """The refusal says which input it is, and of which model."""
    served = serve_fake(tiny_folder / "tokenizer.json")
    with pytest.raises(UnsupportedError, match="org/fake-model takes texts only") as caught:
        embed(served, ["alpha", PNG])
    served.service.close()
    assert (caught.value.param, caught.value.input_index) == ("input", 1)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"chunks": (2,)}, "input"),
        ({"splits": (((0, 1),), ((0, 1),))}, "input"),
        ({"context": ("a", "b")}, "context"),
        ({"kind": OutputKind.TOKENS}, "input"),
    ],
)
def test_what_goes_with_texts_only_is_refused(
    served: Served, fields: dict[str, Any], param: str
) -> None:
    """Options that pictures do not have are refused by their names."""
    with pytest.raises(InputError) as caught:
        embed(served, ["alpha", PNG], **fields)
    assert caught.value.param == param


def test_errors_name_the_place_in_the_whole_call(served: Served) -> None:
    """An input is counted among all inputs, whichever kind it and the others are."""
    with pytest.raises(InputError, match="picture") as broken:
        embed(served, ["alpha", PNG, Picture(PNG.data[:60])])
    assert broken.value.input_index == 2
    with pytest.raises(InputTooLongError) as long:
        embed(served, [PNG, "alpha", "alpha " * 40])
    assert long.value.input_index == 2


def test_tokens_of_pictures_count(tiny_folder: Path) -> None:
    """In what a key is charged, and in what a request may have; that before anything is decoded."""
    limits = ServiceLimits(max_tokens=19)
    options = ServedOptions(spec=WITH_PICTURES, limits=limits)
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    counted: list[int] = []

    async def admit(tokens: int) -> None:
        counted.append(tokens)

    embed(served, ["alpha beta", PNG, JPEG], admit=admit)
    with pytest.raises(RequestTooLargeError):
        embed(served, [Picture(b"no picture")] * 4)
    served.service.close()
    assert counted == [14]


def test_a_picture_is_known_by_its_pixels(tiny_folder: Path) -> None:
    """The cache finds a picture that comes again, in whatever file; texts have keys of their own."""
    cache = VectorCache(2**20)
    options = ServedOptions(spec=WITH_PICTURES, cache=cache)
    served = serve_fake(tiny_folder / "tokenizer.json", options)
    image = colours(40, 40)
    first = embed(served, [Picture(encoded(image, "PNG")), "alpha"])
    again = embed(served, ["alpha", Picture(encoded(image, "BMP")), JPEG])
    served.service.close()
    counts = cache.counts_of(WITH_PICTURES.name)
    assert (counts.hits, counts.misses) == (2, 3)
    assert np.allclose(again.vectors[1], first.vectors[0])


def test_groups_may_have_a_text_and_a_picture(served: Served) -> None:
    """One vector of a text and a picture is the mean of both."""
    result = embed(served, ["alpha", PNG], groups=(2,))
    parts = np.array([vector_of(served, value) for value in ("alpha", PNG)])
    unit = parts / np.linalg.norm(parts, axis=1, keepdims=True)
    mean = unit.mean(axis=0)
    cosine = result.vectors[0] @ mean / np.linalg.norm(result.vectors[0]) / np.linalg.norm(mean)
    assert cosine > 1 - 1e-6


def test_pictures_are_decoded_in_the_threads(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never on the event loop, however small they are."""
    names: list[str] = []

    def note(data: bytes, bounds: PictureBounds) -> Any:
        names.append(threading.current_thread().name)
        return decode_picture(data, bounds)

    monkeypatch.setattr(picture_inputs, "decode_picture", note)
    embed(served, [PNG, JPEG, WIDE])
    assert len(names) == 3
    assert all(name.startswith("nestvec-front") for name in names)


def test_pixels_go_to_the_core_a_few_at_a_time(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of many pictures is no single frame of all their pixels, and no more than memory allows."""
    sizes: list[int] = []
    submit = EngineCore.submit

    def note(core: EngineCore, submission: Any) -> Any:
        sizes.append(len(submission.items))
        assert submission.options.layer_share == TOWER.token_cost
        return submit(core, submission)

    monkeypatch.setattr(EngineCore, "submit", note)
    monkeypatch.setattr(picture_inputs, "SUBMITTED_BYTES", 2 * TOWER.pixel_bytes)
    inputs = [PNG, JPEG, WIDE, JPEG, PNG]
    result = embed(served, inputs)
    assert sizes == [2, 2, 1]
    assert np.allclose(result.vectors, [vector_of(served, value) for value in inputs])
    monkeypatch.setattr(picture_inputs, "MAX_PIXEL_BYTES", 4 * TOWER.pixel_bytes)
    with pytest.raises(RequestTooLargeError, match="at most 4 pictures"):
        embed(served, inputs)
