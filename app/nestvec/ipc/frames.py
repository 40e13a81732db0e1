"""Frames between HTTP processes and an engine process: a head in JSON, then raw arrays. Pure but for reading a stream.

Both ends are the same version of the same program on the same machine, so byte order and layout are the machine's own,
and monotonic times mean the same on both sides (CLOCK_MONOTONIC is the system's). Nothing is unpickled.
"""

import asyncio
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import repeat
from operator import attrgetter
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from nestvec import errors
from nestvec.engine.backend import BackendInfo
from nestvec.engine.results import RawVectors
from nestvec.engine.types import Item, ItemOptions, Layout, OutputKind, Priority, Submission
from nestvec.errors import NestvecError

LENGTHS: Final = struct.Struct("<II")  # bytes of the head, bytes of the arrays
BUFFER_BYTES: Final = 2**20  # buffer of a stream
# An answer of 16,384 token vectors of 4,096 dimensions is an eighth of it.
MAX_FRAME_BYTES: Final = 2**31


# Fields are read from the dataclasses, so that a new one of a plain type needs no change here. An option is sent once
# per call, a column holds one value per item. Ids and masks are arrays, and travel in the body.
OPTION_NAMES: Final = tuple(field.name for field in fields(ItemOptions))
OPTION_VALUES: Final = attrgetter(*OPTION_NAMES)
COLUMNS: Final = {
    field.name: attrgetter(field.name)
    for field in fields(Item)
    if field.name not in ("ids", "token_mask", "pixels")
}
# How to read what JSON has no type for.
OPTION_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "priority": Priority,
    "kind": OutputKind,
    "exits": tuple,
}
COLUMN_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "spans": lambda spans: tuple((start, stop) for start, stop in spans),
    "grids": lambda grids: tuple(map(tuple, grids)),
}


@dataclass(frozen=True, slots=True)
class Frame:
    """One message.

    Attributes:
        head: JSON object, always with `kind` and, for calls and their answers, `id`.
        body: Arrays, one after the other; the head says how they are cut.
    """

    head: Mapping[str, Any]
    body: bytes = b""

    @property
    def kind(self) -> str:
        """Kind of message."""
        return str(self.head["kind"])

    def parts(self) -> tuple[bytes, bytes]:
        """Return what goes over the wire; the body apart, as it may be large."""
        head = orjson.dumps(self.head)
        return LENGTHS.pack(len(head), len(self.body)) + head, self.body


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """Read the next message.

    Raises:
        asyncio.IncompleteReadError: The other side has gone.
        ValueError: What was read is no frame.
    """
    head_bytes, body_bytes = LENGTHS.unpack(await reader.readexactly(LENGTHS.size))
    if head_bytes + body_bytes > MAX_FRAME_BYTES:
        raise ValueError("a frame is too large")
    head = orjson.loads(await reader.readexactly(head_bytes))
    return Frame(head, await reader.readexactly(body_bytes) if body_bytes else b"")


def loaded_frame(call_id: int, info: BackendInfo, max_batch_tokens: int) -> Frame:
    """Return the answer to "load": what its backend is, and the budget of its micro-batches in token equivalents."""
    head = {
        "kind": "loaded",
        "id": call_id,
        "info": asdict(info),
        "max_batch_tokens": max_batch_tokens,
    }
    return Frame(head)


def loaded_of(frame: Frame) -> tuple[BackendInfo, int]:
    """Return what `loaded_frame` was given: the backend's info and the budget of a micro-batch."""
    values = dict(frame.head["info"])
    # JSON knows no infinity: orjson writes null.
    max_cost = math.inf if values["max_cost"] is None else values["max_cost"]
    info = BackendInfo(**{**values, "layout": Layout(values["layout"]), "max_cost": max_cost})
    return info, frame.head["max_batch_tokens"]


def submit_frame(call_id: int, model: str, submission: Submission) -> Frame:
    """Return the frame of a call; what its items have in common is said once.

    Args:
        call_id: Number by which its answer is known.
        model: Name of the model's slot.
        submission: The call.
    """
    items = submission.items
    masks = [item.token_mask for item in items]
    columns = {name: list(map(get, items)) for name, get in COLUMNS.items()}
    head = {
        "kind": "submit",
        "id": call_id,
        "model": model,
        "options": dict(zip(OPTION_NAMES, OPTION_VALUES(submission.options), strict=True)),
        "tokens": [item.tokens for item in items],
        # Most calls have nothing in most columns; what is left out has its default.
        "columns": {name: values for name, values in columns.items() if any(values)},
        "has_mask": [mask is not None for mask in masks],
    }
    ids = [np.ascontiguousarray(item.ids, np.int32).tobytes() for item in items]
    parts = [*ids, *(mask.tobytes() for mask in masks if mask is not None)]
    pixels = [item.pixels for item in items if item.pixels is not None]
    if pixels:
        head["pixels"] = [picture.shape for picture in pixels]
        parts += [picture.tobytes() for picture in pixels]
    return Frame(head, b"".join(parts))


def submission_of(frame: Frame) -> Submission:
    """Return the call that `submit_frame` was given.

    Raises:
        KeyError, TypeError, ValueError: The frame is no call.
    """
    head, tokens = frame.head, frame.head["tokens"]
    options = dict(head["options"])
    for name, read in OPTION_READERS.items():
        options[name] = read(options[name])
    columns = dict(head["columns"])
    for name in COLUMN_READERS.keys() & columns.keys():
        columns[name] = map(COLUMN_READERS[name], columns[name])
    rows = zip(*columns.values(), strict=True) if columns else repeat((), len(tokens))
    ids = np.frombuffer(frame.body, np.int32, sum(tokens))
    masks = np.frombuffer(frame.body, np.bool_, offset=ids.nbytes)
    items, start, mask_start = [], 0, 0
    for length, has_mask, row in zip(tokens, head["has_mask"], rows, strict=True):
        mask = masks[mask_start : mask_start + length] if has_mask else None
        mask_start += length if has_mask else 0
        values = dict(zip(columns, row, strict=True))
        items.append(Item(ids[start : start + length], token_mask=mask, **values))
        start += length
    if "pixels" in head:
        pixels = _pixels_of(frame.body, ids.nbytes + mask_start, head["pixels"])
        items = [replace(item, pixels=of_item) for item, of_item in zip(items, pixels, strict=True)]
    return Submission(ItemOptions(**options), tuple(items))


def _pixels_of(
    body: bytes, start: int, shapes: Sequence[Sequence[int]]
) -> Iterator[NDArray[np.uint8]]:
    """Iterate over the pixels of pictures, which stand one behind the other in a body.

    Raises:
        ValueError: The body is too short.
    """
    for shape in shapes:
        count = math.prod(shape)
        yield np.frombuffer(body, np.uint8, count, start).reshape(shape)
        start += count


def vectors_frame(call_id: int, raw: RawVectors) -> Frame:
    """Return the answer to a call."""
    head = {
        "kind": "vectors",
        "id": call_id,
        "shape": raw.vectors.shape,
        "rows": None if set(raw.rows) == {1} else raw.rows,
        "queue_wait_s": raw.queue_wait_s,
        "engine_s": raw.engine_s,
    }
    return Frame(head, np.ascontiguousarray(raw.vectors, np.float32).tobytes())


def vectors_of(frame: Frame) -> RawVectors:
    """Return the vectors of an answer.

    Raises:
        KeyError, ValueError: The frame is no answer with vectors.
    """
    head = frame.head
    vectors = np.frombuffer(frame.body, np.float32).reshape(head["shape"])
    rows = head["rows"]
    return RawVectors(
        vectors,
        (1,) * len(vectors) if rows is None else tuple(rows),
        head["queue_wait_s"],
        head["engine_s"],
    )


def error_frame(call_id: int, error: NestvecError) -> Frame:
    """Return the answer to a call that failed."""
    head = {"kind": "failed", "id": call_id, "error": type(error).__name__, "fields": vars(error)}
    return Frame(head)


def error_of(frame: Frame) -> NestvecError:
    """Return the error that a call failed with, of the same class with the same attributes."""
    named = getattr(errors, str(frame.head["error"]), None)
    kind = named if isinstance(named, type) and issubclass(named, NestvecError) else NestvecError
    error = kind.__new__(kind)
    attributes = frame.head["fields"]
    Exception.__init__(error, attributes.get("message", ""))
    for name, value in attributes.items():
        setattr(error, name, value)
    return error
