"""Reads a file of word vectors from its start to its end, packed by gzip or not, a part at a time."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Final

import numpy as np

from nestvec.engine.types import FloatArray
from nestvec.errors import FormatError
from nestvec.model_store.word_tables.source_table import FETCH_AGAIN

GZIP_SIGNATURE: Final = b"\x1f\x8b"
BLOCK_BYTES: Final = 2**20


class ByteReader:
    """A file that is read once, with places for messages.

    Args:
        path: The file, for messages.
        file: Open at its start.
    """

    def __init__(self, path: Path, file: BufferedIOBase | IO[bytes]) -> None:
        self.path = path
        self._file = file
        self._held = b""
        self._at = 0
        self._before = 0  # bytes of the file before those that are held

    @property
    def offset(self) -> int:
        """Bytes that were read (of a packed file, of what it holds)."""
        return self._before + self._at

    def peek(self, size: int) -> bytes:
        """Return the next bytes without reading them; fewer at the end.

        Raises:
            FormatError: The file is packed and corrupt, or cannot be read.
        """
        while len(self._held) - self._at < size and self._more(size):
            pass
        return self._held[self._at : self._at + size]

    def exactly(self, size: int, what: str) -> bytes:
        """Read so many bytes.

        Raises:
            FormatError: The file ends before; names the place.
        """
        parts = [self._held[self._at : self._at + size]]
        start = self.offset
        self._at += len(parts[0])
        missing = size - len(parts[0])
        while missing and self._more(min(missing, BLOCK_BYTES)):
            part = self._held[self._at : self._at + missing]
            parts.append(part)
            self._at += len(part)
            missing -= len(part)
        if missing:
            raise FormatError(f"{self.path}: byte {start}: the file ends in {what}; {FETCH_AGAIN}")
        return b"".join(parts)

    def until(self, mark: bytes, limit: int, what: str) -> bytes:
        """Read up to a byte, which is read too and not returned.

        Raises:
            FormatError: It does not come within `limit` bytes, or before the file's end; names the place.
        """
        searched = 0
        while True:
            found = self._held.find(mark, self._at + searched, self._at + limit + 1)
            if found >= 0:
                content = self._held[self._at : found]
                self._at = found + 1
                return content
            searched = min(len(self._held) - self._at, limit)
            if searched >= limit:
                raise FormatError(
                    f"{self.path}: byte {self.offset}: {what} of more than {limit} bytes; is this such a file?"
                )
            if not self._more(BLOCK_BYTES):
                raise FormatError(
                    f"{self.path}: byte {self.offset}: the file ends in {what}; {FETCH_AGAIN}"
                )

    def line(self, limit: int, number: int) -> bytes | None:
        """Read a line without its end; None at the file's end.

        Raises:
            FormatError: It is longer than `limit` bytes; names its number.
        """
        searched = 0
        while True:
            found = self._held.find(b"\n", self._at + searched, self._at + limit + 1)
            if found >= 0:
                break
            searched = min(len(self._held) - self._at, limit)
            if searched >= limit:
                raise FormatError(
                    f"{self.path}: line {number}: longer than {limit} bytes; is this a table of word vectors?"
                )
            if not self._more(BLOCK_BYTES):
                if self._at == len(self._held):
                    return None
                found = len(self._held)
                break
        content = self._held[self._at : found]
        self._at = min(found + 1, len(self._held))
        return content

    def floats(self, count: int, what: str) -> FloatArray:
        """Read so many float32 values, (count,), all finite.

        Raises:
            FormatError: The file ends before, or one is not finite; names the place.
        """
        start = self.offset
        values = np.frombuffer(self.exactly(4 * count, what), "<f4").astype(np.float32)
        if not np.isfinite(values).all():
            place = start + 4 * int(np.flatnonzero(~np.isfinite(values))[0])
            raise FormatError(
                f"{self.path}: byte {place}: NaN or infinity in {what}; leave such words out when you write the table"
            )
        return values

    def _more(self, size: int) -> bool:
        """Read further bytes of the file behind those held; whether there were any."""
        try:
            block = self._file.read(max(size, BLOCK_BYTES))
        except (OSError, EOFError, zlib.error) as error:
            raise FormatError(
                f"{self.path}: byte {self._before + len(self._held)}: cannot be read ({error}); {FETCH_AGAIN}"
            ) from error
        self._before += self._at
        self._held = self._held[self._at :] + block
        self._at = 0
        return bool(block)


@contextmanager
def open_reader(path: Path) -> Iterator[ByteReader]:
    """Open a file, packed by gzip or not.

    Raises:
        FormatError: It cannot be opened.
    """
    try:
        with path.open("rb") as plain:
            is_packed = plain.read(len(GZIP_SIGNATURE)) == GZIP_SIGNATURE
            plain.seek(0)
            if is_packed:
                with gzip.open(plain) as packed:
                    yield ByteReader(path, packed)
            else:
                yield ByteReader(path, plain)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error})") from error
