"""Request bodies: a bounded number of bytes and seconds, whatever the content type, parsed to a JSON object."""

import time
from functools import partial
from ipaddress import IPv6Network
from typing import Any, Final

from fastapi import Request

from nestvec.api.http.body_memory import BodyReservation
from nestvec.api.http.content_codings import content_coding, inflated
from nestvec.api.http.pacing import PacedThread
from nestvec.api.http.stage_times import stage_times
from nestvec.errors import BodyFormatError, BodyTimeoutError, BodyTooLargeError
from nestvec.system.json_bodies import JsonLimits, is_quickly_parsed, parse_json

# Keys in a request's ASGI scope: what it holds of the budget, and the monotonic time at which its headers were there.
BODY_RESERVATION: Final = "nestvec.bodies"
HEADERS_CAME_S: Final = "nestvec.headers_came_s"
# One, as Python's lock lets one work at a time, and each keeps the memory that it has freed.
PARSER: Final = PacedThread("nestvec-bodies")


async def read_json_object(
    request: Request, *, max_bytes: int, timeout_s: float, limits: JsonLimits
) -> dict[str, Any]:
    """Read and parse a body as a JSON object.

    Strings of the result are valid Unicode: lone surrogates have become U+FFFD.

    Args:
        request: Whose body is read.
        max_bytes: How long it may be, before and after decompression.
        timeout_s: How long it may take to come in, from the request's headers on.
        limits: What its JSON may be like.

    Raises:
        BodyTooLargeError: The body has more than `max_bytes`, before or after decompression.
        BodyTimeoutError: It takes too long to come in.
        BodyFormatError: It is not JSON, not an object, nested too deeply, or in an encoding that is not read here.
        QueueFullError: Other requests' bodies leave no memory for this one.
    """
    body = await _collect(request, max_bytes=max_bytes, timeout_s=timeout_s)
    data = await parse_bounded(body, limits)
    stage_times(request.scope).parsed()
    if not isinstance(data, dict):
        raise BodyFormatError("the body must be a JSON object")
    return data


async def parse_bounded(body: bytes | bytearray, limits: JsonLimits) -> Any:  # noqa: ANN401 - JSON is of any type
    """Parse JSON, in a thread where it would keep the event loop waiting.

    Raises:
        BodyFormatError: The body is not JSON, nested too deeply, or holds too many values.
    """
    if is_quickly_parsed(body):
        return parse_json(body, limits)
    return await PARSER.run(partial(parse_json, body, limits))


async def read_body(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """Collect the body, decompressed, never holding more than the bound.

    Args:
        request: Whose body is read.
        max_bytes: How long it may be, before and after decompression.
        timeout_s: How long it may take to come in, from the request's headers on.

    Raises:
        BodyTooLargeError: The body has more than `max_bytes`, before or after decompression.
        BodyTimeoutError: It takes too long to come in.
        BodyFormatError: Its encoding is not read here, or is broken.
        QueueFullError: Other requests' bodies leave no memory for this one.
    """
    return bytes(await _collect(request, max_bytes=max_bytes, timeout_s=timeout_s))


async def _collect(request: Request, *, max_bytes: int, timeout_s: float) -> bytearray:
    """Collect the body as `read_body` does, without a copy of it."""
    too_large = BodyTooLargeError(
        f"the body is over {max_bytes} bytes; send fewer inputs a request", param="input"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    coding = content_coding(request.headers)
    reservation = reservation_of(request)
    ends_s = started_s(request) + timeout_s
    body = bytearray()
    async for piece in inflated(request.stream(), coding) if coding else request.stream():
        if reservation is not None:
            reservation.add(len(piece))
        body += piece
        if len(body) > max_bytes:
            raise too_large
        # No timer: a connection on which nothing comes at all is closed by the sweep over all of them.
        if time.monotonic() > ends_s:
            raise BodyTimeoutError(
                f"the body was not here {timeout_s:g} s after its headers; send smaller requests"
            )
    return body


def reservation_of(request: Request) -> BodyReservation | None:
    """Return what a request holds of the memory for bodies, in its caller's name; None outside of a server."""
    reservation: BodyReservation | None = request.scope.get(BODY_RESERVATION)
    if reservation is not None:
        reservation.owner = owner_of(request)
    return reservation


def started_s(request: Request) -> float:
    """Return the monotonic time, in seconds, at which the headers of a request were there."""
    came_s: float = request.scope.get(HEADERS_CAME_S) or time.monotonic()
    return came_s


def owner_of(request: Request) -> str:
    """Return whose a request's body is: its key's, or its address's where the server asks for no key.

    Addresses of IPv6 count by their network of 64 bits, all of which one caller has.
    """
    grant = request.scope.get("state", {}).get("key_grant")
    if grant is not None and grant.key_id:
        return f"key {grant.key_id}"
    client = request.scope.get("client")
    host = str(client[0]) if client else ""
    if ":" not in host:
        return host
    try:
        return str(IPv6Network((host.partition("%")[0], 64), strict=False))
    except ValueError:
        return host
