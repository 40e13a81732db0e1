"""Large answers as JSON, in slices: between two of them the event loop goes round once, so that others get their turn.

Whatever a request may ask for, no slice computes for more than some milliseconds.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson

from nestvec.api.http.pacing import PACER

Item = TypeVar("Item")
Result = TypeVar("Result")

# How many small objects (a token, a term, a label) are built and encoded in a slice: about 5 ms.
OBJECTS_PER_SLICE: Final = 4096
# How many characters are encoded in a slice: about 1 ms, where each becomes an escape of six.
CHARS_PER_SLICE: Final = 128 * 1024
# Joining less takes less than waking a thread does. In a thread the copy of more runs without Python's global lock.
JOINED_BYTES: Final = 1024 * 1024
# How many values are computed with on the event loop: about 0.2 ms.
INLINE_VALUES: Final = 32 * 1024


# So much of an answer is copied between two turns of other requests: about 2 ms.
COPIED_BYTES: Final = 4 * 1024 * 1024


class Turns:
    """Counts work on the event loop, and lets other requests have their turn each time that there was enough.

    Args:
        per_slice: How much work is done between two turns, in whatever `spend` is told.
    """

    def __init__(self, per_slice: int = OBJECTS_PER_SLICE) -> None:
        self._per_slice = per_slice
        self._spent = 0

    async def spend(self, work: int) -> None:
        """Note work that has been done."""
        self._spent += work
        if self._spent >= self._per_slice:
            self._spent = 0
            await PACER.next()


async def join_parts(parts: Sequence[bytes]) -> bytes:
    """Join the parts of an answer: little right here, much in a thread."""
    if sum(map(len, parts)) <= JOINED_BYTES:
        return b"".join(parts)
    return await asyncio.to_thread(b"".join, parts)


def listed(items: Iterable[bytes]) -> list[bytes]:
    """Return the parts of a JSON list of encoded items."""
    parts = [b"["]
    for item in items:
        parts += (item, b",")
    if len(parts) > 1:
        parts.pop()
    parts.append(b"]")
    return parts


def object_parts(fields: Mapping[str, Any], encoded: Mapping[str, Sequence[bytes]]) -> list[bytes]:
    """Return the parts of a JSON object.

    Args:
        fields: Its fields in their order, at least one.
        encoded: Those that are large, as parts of their JSON; whatever `fields` has in their place is left out.
    """
    parts: list[bytes] = []
    for name, value in fields.items():
        separator = b"," if parts else b"{"
        parts.append(b'%s"%s":' % (separator, name.encode()))
        parts += encoded[name] if name in encoded else (orjson.dumps(value),)
    parts.append(b"}")
    return parts


async def text_json(text: str, turns: Turns) -> bytes:
    """Encode a text, however long.

    Args:
        text: Valid Unicode.
        turns: Counts characters.
    """
    if len(text) <= CHARS_PER_SLICE:
        await turns.spend(len(text))
        return orjson.dumps(text)
    parts = [b'"']
    for start in range(0, len(text), CHARS_PER_SLICE):
        piece = text[start : start + CHARS_PER_SLICE]
        parts.append(orjson.dumps(piece)[1:-1])
        await turns.spend(len(piece))
    parts.append(b'"')
    return await join_parts(parts)


async def texts_json(texts: Sequence[str]) -> list[bytes]:
    """Encode texts, each by itself."""
    turns = Turns(CHARS_PER_SLICE)
    return [await text_json(text, turns) for text in texts]


def with_field(objects: Iterable[bytes], name: str, values: Iterable[bytes]) -> list[bytes]:
    """Return encoded objects, none of them empty, with one field more each, whose values are encoded too."""
    key = b',"%s":' % name.encode()
    return [
        b"".join((row[:-1], key, value, b"}")) for row, value in zip(objects, values, strict=True)
    ]


async def lists_json(
    lists: Iterable[Sequence[Item]], as_object: Callable[[Item], Mapping[str, Any]]
) -> list[bytes]:
    """Encode lists of small objects, each by itself, of any length and number.

    Args:
        lists: A slice of one is a list of so many items only, which may be made as it is looked at.
        as_object: Gives the object of an item.
    """
    turns = Turns()
    encoded = []
    for items in lists:
        slices = []
        for start in range(0, len(items), OBJECTS_PER_SLICE):
            part = items[start : start + OBJECTS_PER_SLICE]
            slices.append(orjson.dumps([as_object(item) for item in part])[1:-1])
            await turns.spend(len(part))
        encoded.append(await join_parts(listed(slices)))
    return encoded


async def compute(work: Callable[[], Result], *, size: int) -> Result:
    """Compute with arrays: with few values right here, with many in a thread.

    Args:
        work: What is computed, by numpy, which gives Python's global lock back while it works.
        size: How many values it goes through.
    """
    return work() if size <= INLINE_VALUES else await asyncio.to_thread(work)
