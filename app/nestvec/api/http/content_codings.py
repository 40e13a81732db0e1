"""Content codings of bodies: gzip and deflate as they are found in the wild, inflated piece by piece.

Sources: RFC 9110 8.4 (codings), RFC 1952 2.2 (a gzip file is a series of members), RFC 1950 (zlib), RFC 1951 (deflate).
"""

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Final

from starlette.datastructures import Headers

from nestvec.api.http.pacing import PACER
from nestvec.errors import BodyFormatError

GZIP_MAGIC: Final = b"\x1f\x8b"
# zlib's window sizes: with 16 more it reads gzip, a negative one is deflate without any header.
GZIP_BITS: Final = zlib.MAX_WBITS | 16
RAW_BITS: Final = -zlib.MAX_WBITS
# A compressed body is inflated in pieces of this size, so that a bomb is seen before it goes off.
PIECE_BYTES: Final = 1024 * 1024
# Smaller pieces are so quick that nobody need wait for others between them.
PACED_BYTES: Final = 64 * 1024
# Nobody compresses to more than twice the size, except a few bytes at a time: headers, and blocks that hold nothing.
MOST_WASTE: Final = 2
FREE_WASTE_BYTES: Final = 8 * 1024
CODINGS: Final = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}


def content_coding(headers: Headers) -> str:
    """Return the coding of a body: "gzip", "deflate", or "" for none.

    Raises:
        BodyFormatError: The body is in another coding, or in several.
    """
    named = headers.get("content-encoding")
    if named is None:
        return ""
    named = ",".join(headers.getlist("content-encoding")).lower()
    codings = [word for part in named.split(",") if (word := part.strip()) not in ("", "identity")]
    if not codings:
        return ""
    if len(codings) > 1 or codings[0] not in CODINGS:
        raise BodyFormatError(
            "Content-Encoding must be gzip, deflate or none", code="invalid_encoding"
        )
    return CODINGS[codings[0]]


class BodyInflater:
    """Inflates a body as it comes in.

    What it is compressed with is told by its first two bytes: clients send zlib's format, as RFC 9110 has it, or raw
    deflate, as some have since the nineties, under the name of deflate, and now and then either under the other's name.

    Args:
        coding: "gzip" or "deflate", as the headers have it.
    """

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._first = b""
        self._stream: zlib._Decompress | None = None
        self._is_gzip = False
        self._wasted_bytes = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what comes out of the next chunk, in pieces of at most `PIECE_BYTES`.

        Raises:
            BodyFormatError: The body is broken, goes on behind its end, or grows without holding anything.
        """
        try:
            yield from self._inflate(self._first + chunk)
        except zlib.error:
            raise self._error(f"the body is not valid {self._coding}") from None

    def finish(self) -> None:
        """Check that the body has come to its end.

        Raises:
            BodyFormatError: It breaks off.
        """
        if self._stream is None or not self._stream.eof:
            raise self._error(f"the {self._coding} body is incomplete")

    def _inflate(self, compressed: bytes) -> Iterator[bytes]:
        """Yield pieces of what was compressed.

        Raises:
            zlib.error: It is broken.
        """
        if self._stream is None:
            self._first = compressed
            if len(compressed) < len(GZIP_MAGIC):
                return
            self._first, self._stream = b"", self._open(compressed)
        while compressed:
            piece = self._stream.decompress(compressed, PIECE_BYTES)
            has_ended = self._stream.eof
            rest = self._stream.unused_data if has_ended else self._stream.unconsumed_tail
            wasted_bytes = self._wasted_bytes + len(compressed) - len(rest)
            self._wasted_bytes = max(0, wasted_bytes - MOST_WASTE * len(piece))
            if self._wasted_bytes > FREE_WASTE_BYTES:
                raise self._error(f"the {self._coding} body is made of blocks that hold nothing")
            yield piece
            while len(piece) == PIECE_BYTES and not rest and not has_ended:
                # There may be more inside, of which the bytes are taken in already.
                piece = self._stream.decompress(b"", PIECE_BYTES)
                has_ended = self._stream.eof
                yield piece
            if has_ended and rest:
                if not self._is_gzip:
                    raise self._error(f"the {self._coding} body goes on behind its end")
                self._stream = zlib.decompressobj(GZIP_BITS)
            compressed = rest

    def _open(self, beginning: bytes) -> "zlib._Decompress":
        """Begin to inflate, in the format that the first two bytes are of."""
        self._is_gzip = beginning.startswith(GZIP_MAGIC)
        if self._is_gzip:
            return zlib.decompressobj(GZIP_BITS)
        is_zlib = beginning[0] & 0x0F == zlib.DEFLATED and int.from_bytes(beginning[:2]) % 31 == 0
        is_raw = self._coding == "deflate" and not is_zlib
        return zlib.decompressobj(RAW_BITS if is_raw else zlib.MAX_WBITS)

    def _error(self, message: str) -> BodyFormatError:
        return BodyFormatError(message, code="invalid_encoding")


async def inflated(chunks: AsyncIterator[bytes], coding: str) -> AsyncIterator[bytes]:
    """Yield a body decompressed, in pieces of at most `PIECE_BYTES`, between which other requests get their turn.

    Args:
        chunks: The body as it comes in.
        coding: "gzip" or "deflate".

    Raises:
        BodyFormatError: The body is broken, or holds nothing.
    """
    inflater = BodyInflater(coding)
    async for chunk in chunks:
        for piece in inflater.feed(chunk):
            if len(piece) >= PACED_BYTES:
                await PACER.next()
            yield piece
    inflater.finish()
