"""Request bodies: a bounded number of bytes, whatever the content type, parsed to a JSON object."""

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
# Key in a request's ASGI scope.
BODY_RESERVATION: Final = "nestvec.bodies"
# A smaller body is parsed in less time than other requests may be kept waiting, whatever it holds.
LARGE_BYTES: Final = 1024 * 1024
# A compressed body is inflated in pieces of this size, so that a bomb is seen before it goes off.
PIECE_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class BodyMemoryBudget:
    """Memory for the bodies of all requests under way.

    Attributes:
        max_bytes: How much they may take together, decompressed.
        held_bytes: How much they take now.
    """

    max_bytes: int
    held_bytes: int = 0

    def reserve(self, count: int) -> None:
        """Reserve so many bytes.

        Raises:
            QueueFullError: Too little is left.
        """
        if self.held_bytes + count > self.max_bytes:
            raise QueueFullError(
                "The server holds as many request bodies as it may; retry later.", retry_after_s=1.0
            )
        self.held_bytes += count

    def release(self, count: int) -> None:
        """Give back bytes of a request that has been answered."""
        self.held_bytes -= count


@dataclass(slots=True)
class BodyReservation:
    """What one request holds of the budget, until it has been answered.

    Attributes:
        budget: Shared by all requests.
        held_bytes: How much this request holds.
    """

    budget: BodyMemoryBudget
    held_bytes: int = 0

    def add(self, count: int) -> None:
        """Reserve more bytes for the request.

        Raises:
            QueueFullError: Too little is left.
        """
        self.budget.reserve(count)
        self.held_bytes += count

    def release(self) -> None:
        """Give back all that the request holds."""
        if self.held_bytes:
            self.budget.release(self.held_bytes)
            self.held_bytes = 0


async def read_json_object(
    request: Request, *, max_bytes: int, limits: JsonLimits
) -> dict[str, Any]:
    """Read and parse a body as a JSON object.

    Strings of the result are valid Unicode: lone surrogates have become U+FFFD.

    Args:
        request: Whose body is read.
        max_bytes: How long it may be, before and after decompression.
        limits: What its JSON may be like.

    Raises:
        BodyTooLargeError: The body has more than `max_bytes`, before or after decompression.
        BodyFormatError: It is not JSON, not an object, nested too deeply, or in an encoding that is not read here.
        QueueFullError: Other requests' bodies leave no memory for this one.
    """
    data = await parse_bounded(await read_body(request, max_bytes=max_bytes), limits)
    if not isinstance(data, dict):
        raise BodyFormatError("the body must be a JSON object")
    return data


async def parse_bounded(body: bytes, limits: JsonLimits) -> Any:  # noqa: ANN401 - JSON is of any type
    """Parse JSON, but no more of it than the event loop can be kept waiting for.

    Raises:
        BodyFormatError: The body is not JSON, nested too deeply, or holds too many values.
    """
    if len(body) <= LARGE_BYTES:
        return parse_json(body, limits)
    await asyncio.to_thread(check_cost, body)
    parsed = parse_json(body, limits)
    await asyncio.sleep(0)  # other requests get their turn before the values are looked at
    return parsed


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Collect the body, decompressed, never holding more than the bound.

    Raises:
        BodyTooLargeError: The body has more than `max_bytes`, before or after decompression.
        BodyFormatError: Its encoding is not read here, or is broken.
        QueueFullError: Other requests' bodies leave no memory for this one.
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
    reservation: BodyReservation | None = request.scope.get(BODY_RESERVATION)
    inflate = None if coding in ("identity", "") else zlib.decompressobj(ANY_HEADER)
    body = bytearray()
    pieces = request.stream() if inflate is None else _inflated(request, inflate, coding)
    async for piece in pieces:
        if reservation is not None:
            reservation.add(len(piece))
        body += piece
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


async def _inflated(
    request: Request, inflate: "zlib._Decompress", coding: str
) -> AsyncIterator[bytes]:
    """Yield a body piece by piece, decompressed.

    Raises:
        BodyFormatError: The body is broken, or ends too early.
    """
    async for chunk in request.stream():
        compressed = chunk
        while compressed:
            try:
                yield inflate.decompress(compressed, PIECE_BYTES)
            except zlib.error:
                message = f"the body is not valid {coding}"
                raise BodyFormatError(message, code="invalid_encoding") from None
            compressed = inflate.unconsumed_tail
            if compressed:
                await asyncio.sleep(0)
    if not inflate.eof:
        raise BodyFormatError(f"the {coding} body is incomplete", code="invalid_encoding")
