"""Frames between a front and the core: a head in JSON, then raw arrays. Pure but for reading a stream.

Both ends are the same version of the same program on the same machine, so byte order and layout are the machine's own,
and monotonic times mean the same on both sides (CLOCK_MONOTONIC is the system's). Nothing is unpickled.
"""

import asyncio
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from nestvec import errors
from nestvec.engine.types import Item, OutputKind, Priority, RawVectors
from nestvec.errors import NestvecError

LENGTHS: Final = struct.Struct("<II")  # bytes of the head, of the arrays
BUFFER_BYTES: Final = 2**20  # of a stream
MAX_FRAME_BYTES: Final = (
    2**31
)  # an answer of 16,384 token vectors of 4,096 dimensions is an eighth of it


@dataclass(frozen=True, slots=True)
class Frame:
    """One message.

    Attributes:
        head: Always with `kind` and, for calls and their answers, `id`.
        body: Arrays, one behind the other; the head says how they are cut.
    """

    head: Mapping[str, Any]
    body: bytes = b""

    @property
    def kind(self) -> str:
        """What it is."""
        return str(self.head["kind"])

    def parts(self) -> tuple[bytes, bytes]:
        """What goes over the wire; the body apart, as it may be large."""
        head = orjson.dumps(self.head)
        return LENGTHS.pack(len(head), len(self.body)) + head, self.body


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """The next message.

    Raises:
        asyncio.IncompleteReadError: The other side has gone.
        ValueError: That was no frame.
    """
    head_bytes, body_bytes = LENGTHS.unpack(await reader.readexactly(LENGTHS.size))
    if head_bytes + body_bytes > MAX_FRAME_BYTES:
        raise ValueError("a frame is too large")
    head = orjson.loads(await reader.readexactly(head_bytes))
    return Frame(head, await reader.readexactly(body_bytes) if body_bytes else b"")


def items_frame(call_id: int, model: str, items: Sequence[Item]) -> Frame:
    """A call: what its items have in common is said once.

    Args:
        call_id: By which its answer is known.
        model: Name of the slot.
        items: At least one; they differ only in what is said of each.
    """
    first = items[0]
    masks = [item.token_mask for item in items]
    head = {
        "kind": "submit",
        "id": call_id,
        "model": model,
        "key_id": first.key_id,
        "priority": first.priority,
        "deadline_s": first.deadline_s,
        "output": first.kind,
        "exits": first.exits,
        "depth": first.depth,
        "columns": first.columns,
        "is_half": first.is_half,
        "tokens": [item.tokens for item in items],
        "indices": [item.index for item in items],
        **_unless_zero("skips", [item.skip_tokens for item in items]),
        **_unless_zero("seconds", [item.second_start for item in items]),
        **_unless_zero("expansions", [item.expansion for item in items]),
        **_unless_zero("spans", [item.spans for item in items]),
        **_unless_zero("has_mask", [mask is not None for mask in masks]),
        "outputs": [item.kind for item in items] if len({i.kind for i in items}) > 1 else None,
    }
    ids = [np.ascontiguousarray(item.ids, np.int32).tobytes() for item in items]
    return Frame(head, b"".join([*ids, *(m.tobytes() for m in masks if m is not None)]))


def items_of(frame: Frame) -> list[Item]:
    """The items of a call.

    Raises:
        KeyError, ValueError: That was no call.
    """
    head, tokens = frame.head, frame.head["tokens"]
    count = len(tokens)
    ids = np.frombuffer(frame.body, np.int32, sum(tokens))
    masks = np.frombuffer(frame.body, np.bool_, offset=ids.nbytes)
    nothing = [0] * count
    has_mask = head.get("has_mask", nothing)
    kinds = head["outputs"] or [head["output"]] * count
    found, start, mask_start = [], 0, 0
    for number, length in enumerate(tokens):
        mask = masks[mask_start : mask_start + length] if has_mask[number] else None
        mask_start += length if has_mask[number] else 0
        found.append(
            Item(
                ids=ids[start : start + length],
                index=head["indices"][number],
                skip_tokens=head.get("skips", nothing)[number],
                key_id=head["key_id"],
                priority=Priority(head["priority"]),
                deadline_s=head["deadline_s"],
                kind=OutputKind(kinds[number]),
                exits=tuple(head["exits"]),
                depth=head["depth"],
                spans=tuple((a, b) for a, b in head.get("spans", [()] * count)[number]),
                second_start=head.get("seconds", nothing)[number],
                expansion=head.get("expansions", nothing)[number],
                token_mask=mask,
                columns=head["columns"],
                is_half=head["is_half"],
            )
        )
        start += length
    return found


def vectors_frame(call_id: int, raw: RawVectors) -> Frame:
    """An answer."""
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
    """An answer's vectors.

    Raises:
        KeyError, ValueError: That was none.
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
    """What a call failed with."""
    said = {"kind": "failed", "id": call_id, "error": type(error).__name__, "fields": vars(error)}
    return Frame(said)


def error_of(frame: Frame) -> NestvecError:
    """The error again, of the same class with the same attributes."""
    named = getattr(errors, str(frame.head["error"]), None)
    kind = named if isinstance(named, type) and issubclass(named, NestvecError) else NestvecError
    error = kind.__new__(kind)
    fields = frame.head["fields"]
    Exception.__init__(error, fields.get("message", ""))
    for name, value in fields.items():
        setattr(error, name, value)
    return error


def _unless_zero(name: str, values: list[Any]) -> dict[str, Any]:
    """Most calls have none of it."""
    return {name: values} if any(values) else {}
