"""Frames: what goes in comes out, for items, vectors and every error."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec import errors
from nestvec.engine.types import Item, OutputKind, Priority, RawVectors
from nestvec.errors import NestvecError
from nestvec.ipc.frames import (
    LENGTHS,
    Frame,
    error_frame,
    error_of,
    items_frame,
    items_of,
    read_frame,
    vectors_frame,
    vectors_of,
)

tokens = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20)


def again(frame: Frame) -> Frame:
    """As the other side reads it."""

    async def read() -> Frame:
        reader = asyncio.StreamReader()
        for part in frame.parts():
            reader.feed_data(part)
        reader.feed_eof()
        return await read_frame(reader)

    return asyncio.run(read())


@st.composite
def items(draw: st.DrawFn) -> list[Item]:
    """Of one call: they share key, class, deadline and exits."""
    common = {
        "key_id": draw(st.text(max_size=8)),
        "priority": draw(st.sampled_from(Priority)),
        "deadline_s": draw(st.none() | st.floats(0, 1e9)),
        "exits": draw(st.sampled_from([(), (1,), (2, 3)])),
        "depth": draw(st.floats(0.1, 1)),
    }
    found = []
    for index, ids in enumerate(draw(st.lists(tokens, min_size=1, max_size=8))):
        mask = draw(st.none() | st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
        found.append(
            Item(
                ids=np.array(ids, np.int32),
                index=index,
                skip_tokens=draw(st.integers(0, 3)),
                kind=draw(st.sampled_from(OutputKind)),
                spans=draw(st.sampled_from([(), ((0, 1),), ((0, 2), (1, 3))])),
                second_start=draw(st.integers(0, 2)),
                expansion=draw(st.integers(0, 2)),
                token_mask=None if mask is None else np.array(mask),
                **common,
            )
        )
    return found


@given(items())
def test_items_survive(given_items: list[Item]) -> None:
    """Each field of each."""
    found = items_of(again(items_frame(7, "model", given_items)))
    assert len(found) == len(given_items)
    for one, other in zip(found, given_items, strict=True):
        for name in Item.__dataclass_fields__:
            mine, theirs = getattr(one, name), getattr(other, name)
            if isinstance(theirs, np.ndarray):
                np.testing.assert_array_equal(mine, theirs)
                assert mine.dtype == theirs.dtype
            else:
                assert mine == theirs, name


@given(st.integers(0, 5), st.integers(1, 6), st.booleans())
def test_vectors_survive(count: int, width: int, several: bool) -> None:  # noqa: FBT001 - hypothesis's
    """To the bit, also none at all."""
    rows = (2,) * count if several else (1,) * count
    values = np.random.default_rng(count).normal(size=(sum(rows), width)).astype(np.float32)
    raw = RawVectors(values, rows, 0.25, 0.5)
    found = vectors_of(again(vectors_frame(3, raw)))
    np.testing.assert_array_equal(found.vectors, values)
    assert (found.rows, found.queue_wait_s, found.engine_s) == (rows, 0.25, 0.5)


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
    """Class, message, code and every attribute: the front answers as if it had raised them."""
    found = error_of(again(error_frame(1, error)))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert found.code == error.code
    said = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(error).items()}
    assert vars(found) == said


def test_an_unknown_error_is_ours() -> None:
    """A name that is no error of this version, or no error at all."""
    for name in ("NoSuchError", "Sequence", "annotations"):
        frame = Frame({"kind": "failed", "id": 1, "error": name, "fields": {"message": "m"}})
        assert type(error_of(frame)) is NestvecError


async def test_what_is_no_frame_is_refused() -> None:
    """A length beyond any frame's, and one that breaks off."""
    reader = asyncio.StreamReader()
    reader.feed_data(LENGTHS.pack(2**32 - 1, 2**32 - 1))
    with pytest.raises(ValueError, match="too large"):
        await read_frame(reader)
    broken = asyncio.StreamReader()
    broken.feed_data(b"".join(Frame({"kind": "x"}, b"abc").parts())[:-1])
    broken.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        await read_frame(broken)
