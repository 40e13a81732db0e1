"""Request bodies: bounded bytes, whatever the content type, to a JSON object."""

import zlib
from typing import Any, Final

from fastapi import Request

from app.errors import BodyFormatError, BodyTooLargeError
from app.json_input import parse_json

# zlib's window sizes: 32 adds detection of the gzip or zlib header.
ANY_HEADER: Final = zlib.MAX_WBITS | 32


async def read_json_object(request: Request, *, max_bytes: int) -> dict[str, Any]:
    """Read and parse a body as a JSON object.

    Strings of the result are valid Unicode: lone surrogates have become U+FFFD.

    Raises:
        BodyTooLargeError: More than `max_bytes`, before or after decompression.
        BodyFormatError: Not JSON, not an object, or an encoding we do not read.
    """
    data = parse_json(await read_body(request, max_bytes=max_bytes))
    if not isinstance(data, dict):
        raise BodyFormatError("the body must be a JSON object")
    return data


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Collect the body, decompressed, never holding more than the bound.

    Raises:
        BodyTooLargeError: More than `max_bytes`, before or after decompression.
        BodyFormatError: An encoding we do not read, or a broken one.
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
    inflate = None if coding in ("identity", "") else zlib.decompressobj(ANY_HEADER)
    body = bytearray()
    async for chunk in request.stream():
        try:
            body += inflate.decompress(chunk, max_bytes + 1 - len(body)) if inflate else chunk
        except zlib.error:
            message = f"the body is not valid {coding}"
            raise BodyFormatError(message, code="invalid_encoding") from None
        if len(body) > max_bytes:
            raise too_large
    if inflate is not None and not inflate.eof:
        raise BodyFormatError(f"the {coding} body is incomplete", code="invalid_encoding")
    return bytes(body)
