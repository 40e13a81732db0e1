"""Frames: what goes in comes out, for calls, vectors and every error."""

import asyncio
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec import errors
from nestvec.engine.backend import BackendInfo
from nestvec.engine.results import RawVectors
from nestvec.engine.types import Item, ItemOptions, Layout, OutputKind, Priority, Submission
from nestvec.errors import NestvecError
from nestvec.ipc.frames import (
    LENGTHS,
    Frame,
    error_frame,
    error_of,
    loaded_frame,
    loaded_of,
    read_frame,
    submission_of,
    submit_frame,
    vectors_frame,
    vectors_of,
)

tokens = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20)


def again(frame: Frame) -> Frame:
    """Return a frame as the other side reads it."""

    async def read() -> Frame:
        reader = asyncio.StreamReader()
        for part in frame.parts():
            reader.feed_data(part)
        reader.feed_eof()
        return await read_frame(reader)

    return asyncio.run(read())


@st.composite
def submissions(draw: st.DrawFn) -> Submission:
    """Calls with any options and any items."""
    options = ItemOptions(
        key_id=draw(st.text(max_size=8)),
        priority=draw(st.sampled_from(Priority)),
        deadline_s=draw(st.none() | st.floats(0, 1e9)),
        kind=draw(st.sampled_from(OutputKind)),
        exits=draw(st.sampled_from([(), (1,), (2, 3)])),
        layer_share=draw(st.floats(0.1, 1)),
        columns=draw(st.integers(0, 4096)),
        is_half=draw(st.booleans()),
    )
    items = []
    for index, ids in enumerate(draw(st.lists(tokens, min_size=1, max_size=8))):
        mask = draw(st.none() | st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
        items.append(
            Item(
                ids=np.array(ids, np.int32),
                index=index,
                skip_tokens=draw(st.integers(0, 3)),
                spans=draw(st.sampled_from([(), ((0, 1),), ((0, 2), (1, 3))])),
                second_start=draw(st.integers(0, 2)),
                expansion=draw(st.integers(0, 2)),
                token_mask=None if mask is None else np.array(mask),
                gives_states=draw(st.booleans()),
            )
        )
    return Submission(options, tuple(items))


@given(submissions(), st.booleans())
def test_calls_survive(submission: Submission, are_pictures: bool) -> None:  # noqa: FBT001 - hypothesis's
    """Every option, and every field of every item, arrives as it was sent, of the same type."""
    if are_pictures:
        options = dataclasses.replace(submission.options, are_pictures=True)
        pixels = np.arange(len(submission.items) * 12, dtype=np.uint8).reshape(-1, 2, 2, 3)
        pictures = zip(submission.items, pixels, strict=True)
        items = [dataclasses.replace(item, pixels=of_item) for item, of_item in pictures]
        submission = Submission(options, tuple(items))
    received = submission_of(again(submit_frame(7, "model", submission)))
    assert received.options == submission.options
    for field in dataclasses.fields(ItemOptions):
        sent = getattr(submission.options, field.name)
        assert type(getattr(received.options, field.name)) is type(sent), field.name
    assert len(received.items) == len(submission.items)
    for item, sent_item in zip(received.items, submission.items, strict=True):
        for field in dataclasses.fields(Item):
            value, sent = getattr(item, field.name), getattr(sent_item, field.name)
            if isinstance(sent, np.ndarray):
                np.testing.assert_array_equal(value, sent)
                assert value.dtype == sent.dtype
            else:
                assert value == sent, field.name


def test_pictures_in_their_own_shapes_survive() -> None:
    """Pixels stand one behind the other, each with its shape, behind ids and masks."""
    shapes = [(2, 3, 4, 4, 3), (1, 1, 4, 4, 3), (5, 1, 4, 4, 3)]
    sent = [np.full(shape, number, np.uint8) for number, shape in enumerate(shapes)]
    items = [Item(np.arange(3, dtype=np.int32), n, pixels=of) for n, of in enumerate(sent)]
    frame = submit_frame(7, "model", Submission(ItemOptions(are_pictures=True), tuple(items)))
    received = [item.pixels for item in submission_of(again(frame)).items]
    assert len(received) == len(sent)
    for got, pixels in zip(received, sent, strict=True):
        np.testing.assert_array_equal(got, pixels)


def test_texts_with_pictures_survive() -> None:
    """Items have patches of as many pictures as they like, each of its own shape, and arrive with them."""
    random = np.random.default_rng(3)
    grids = (((2, 4, 2),), ((4, 2, 2), (2, 2, 2)))
    items = []
    for index, of_item in enumerate(grids):
        patches = sum(rows * columns for rows, columns, _ in of_item)
        pixels = random.integers(0, 256, (patches, 12)).astype(np.uint8)
        ids = np.arange(-patches // 4, 3, dtype=np.int32)
        items.append(Item(ids, index, pixels=pixels, grids=of_item))
    sent = Submission(ItemOptions(are_pictures=True, layer_share=2.5), tuple(items))
    received = submission_of(again(submit_frame(7, "model", sent)))
    assert received.options == sent.options
    for item, of_sent in zip(received.items, items, strict=True):
        assert item.grids == of_sent.grids
        np.testing.assert_array_equal(item.ids, of_sent.ids)
        np.testing.assert_array_equal(item.pixels, of_sent.pixels)


def test_what_is_left_out_of_a_frame_is_the_default() -> None:
    """A column is left out where it holds nothing, so every default of an item must count as nothing."""
    defaults = [field.default for field in dataclasses.fields(Item) if field.name != "ids"]
    assert not any(defaults)


@given(st.integers(0, 5), st.integers(1, 6), st.booleans())
def test_vectors_survive(count: int, width: int, several: bool) -> None:  # noqa: FBT001 - hypothesis's
    """Vectors arrive bit for bit, also where there are none."""
    rows = (2,) * count if several else (1,) * count
    values = np.random.default_rng(count).normal(size=(sum(rows), width)).astype(np.float32)
    raw = RawVectors(values, rows, 0.25, 0.5)
    received = vectors_of(again(vectors_frame(3, raw)))
    np.testing.assert_array_equal(received.vectors, values)
    assert (received.rows, received.queue_wait_s, received.engine_s) == (rows, 0.25, 0.5)


ERRORS = [
    errors.QueueFullError("full", retry_after_s=3.5),
    errors.RateLimitError("slow", retry_after_s=2, key_id="k", of="tokens"),
    errors.BackendError("broken", input_index=4),
    errors.QuarantinedError("no more", input_index=2),
    errors.DegenerateVectorError("nan", input_index=0),
    errors.InputError("bad", param="input", input_index=3, code="x"),
    errors.InputTooLongError(got_tokens=9, limit_tokens=8, input_index=1),
    errors.UnknownModelError("m"),
    errors.ModelUnavailableError("gone", retry_after_s=30),
    errors.DeadlineError("late"),
    errors.ConfigError(["a", "b"]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_survive(error: NestvecError) -> None:
    """Class, message, code and every attribute arrive: the HTTP process answers as if it had raised the error."""
    received = error_of(again(error_frame(1, error)))
    assert type(received) is type(error)
    assert str(received) == str(error)
    assert received.code == error.code
    sent = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(error).items()}
    assert vars(received) == sent


def test_an_unknown_error_is_ours() -> None:
    """A name that is no error of this version, or no error at all, becomes a plain NestvecError."""
    for name in ("NoSuchError", "Sequence", "annotations"):
        frame = Frame({"kind": "failed", "id": 1, "error": name, "fields": {"message": "m"}})
        assert type(error_of(frame)) is NestvecError


async def test_what_is_no_frame_is_refused() -> None:
    """A frame that is longer than any frame may be, and one that breaks off, raise."""
    reader = asyncio.StreamReader()
    reader.feed_data(LENGTHS.pack(2**32 - 1, 2**32 - 1))
    with pytest.raises(ValueError, match="too large"):
        await read_frame(reader)
    broken = asyncio.StreamReader()
    broken.feed_data(b"".join(Frame({"kind": "x"}, b"abc").parts())[:-1])
    broken.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        await read_frame(broken)


@pytest.mark.parametrize("max_cost", [math.inf, 4096.0])
def test_a_loaded_models_backend_crosses_the_wire(max_cost: float) -> None:
    """Its info and the budget of its micro-batches arrive as they were sent, an unknown bound of memory too."""
    info = BackendInfo(Layout.PADDED, "cuda", 8, gives_tokens=False, max_cost=max_cost)
    received = again(loaded_frame(7, info, 64))
    assert loaded_of(received) == (info, 64)
    assert received.head["id"] == 7
