"""Request bodies: bounded bytes, whatever the content type, to a JSON object."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request

from nestvec.errors import BodyFormatError, BodyTooLargeError, QueueFullError
from nestvec.system.json_bodies import JsonLimits, check_cost, parse_json

# zlib's window sizes: 32 adds detection of the gzip or zlib header.
ANY_HEADER: Final = zlib.MAX_WBITS | 32
CLAIM: Final = "nestvec.bodies"  # in a request's scope
# What smaller bodies may hold takes no longer to parse than others may wait.
LARGE_BYTES: Final = 1024 * 1024
# One piece of a compressed body, so that a bomb is seen before it has gone off.
PIECE_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class BodyRoom:
    """Memory for the bodies of all requests under way.

    Attributes:
        most: Bytes, decompressed.
        held: Now.
    """

    most: int
    held: int = 0

    def take(self, count: int) -> None:
        """Claim some.

        Raises:
            QueueFullError: There is none left.
        """
        if self.held + count > self.most:
            raise QueueFullError(
                "The server holds as many request bodies as it may; retry later.", retry_after_s=1.0
            )
        self.held += count

    def give_back(self, count: int) -> None:
        """A request has been answered."""
        self.held -= count


@dataclass(slots=True)
class Claim:
    """What one request holds of it, until it has been answered."""

    room: BodyRoom
    held: int = 0

    def add(self, count: int) -> None:
        """Some more.

        Raises:
            QueueFullError: There is none left.
        """
        self.room.take(count)
        self.held += count

    def release(self) -> None:
        """All of it."""
        if self.held:
            self.room.give_back(self.held)
            self.held = 0


async def read_json_object(
    request: Request, *, max_bytes: int, limits: JsonLimits
) -> dict[str, Any]:
    """Read and parse a body as a JSON object.

    Strings of the result are valid Unicode: lone surrogates have become U+FFFD.

    Raises:
        BodyTooLargeError: More than `max_bytes`, before or after decompression.
        BodyFormatError: Not JSON, not an object, nested too deeply, or an encoding we do not read.
        QueueFullError: Other requests' bodies leave no room.
    """
    data = await parse_bounded(await read_body(request, max_bytes=max_bytes), limits)
    if not isinstance(data, dict):
        raise BodyFormatError("the body must be a JSON object")
    return data


async def parse_bounded(body: bytes, limits: JsonLimits) -> Any:  # noqa: ANN401 - JSON is of any type
    """Parse JSON that holds no more than the event loop can be kept waiting for.

    Raises:
        BodyFormatError: Not JSON, nested too deeply, or too many values.
    """
    if len(body) <= LARGE_BYTES:
        return parse_json(body, limits)
    await asyncio.to_thread(check_cost, body)
    parsed = parse_json(body, limits)
    await asyncio.sleep(0)  # others have their turn before the values are looked at
    return parsed


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Collect the body, decompressed, never holding more than the bound.

    Raises:
        BodyTooLargeError: More than `max_bytes`, before or after decompression.
        BodyFormatError: An encoding we do not read, or a broken one.
        QueueFullError: Other requests' bodies leave no room.
    """
    too_large = BodyTooLargeError(
        f"the body is over {max_bytes} bytes; send fewer inputs a request", param="input"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise BodyFormatError(
            "Content-Encoding must be gzip, deflate or none", code="invalid_encoding"
        )
    claim: Claim | None = request.scope.get(CLAIM)
    inflate = None if coding in ("identity", "") else zlib.decompressobj(ANY_HEADER)
    body = bytearray()
    pieces = request.stream() if inflate is None else _inflated(request, inflate, coding)
    async for piece in pieces:
        if claim is not None:
            claim.add(len(piece))
        body += piece
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


async def _inflated(
    request: Request, inflate: "zlib._Decompress", coding: str
) -> AsyncIterator[bytes]:
    """A body piece by piece, decompressed.

    Raises:
        BodyFormatError: It is broken, or ends too early.
    """
    async for chunk in request.stream():
        left = chunk
        while left:
            try:
                yield inflate.decompress(left, PIECE_BYTES)
            except zlib.error:
                message = f"the body is not valid {coding}"
                raise BodyFormatError(message, code="invalid_encoding") from None
            left = inflate.unconsumed_tail
            if left:
                await asyncio.sleep(0)
    if not inflate.eof:
        raise BodyFormatError(f"the {coding} body is incomplete", code="invalid_encoding")
