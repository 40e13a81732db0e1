"""Files that are gone on with after an interruption: written behind a known size, synced before it is noted."""

import errno
import os
from pathlib import Path
from typing import IO


def open_at(path: Path, size: int) -> IO[bytes]:
    """A file cut back to a size, to be gone on with; new where that is 0.

    Raises:
        FileNotFoundError: So much of it is not there.
    """
    if not size:
        return path.open("wb")
    if path.stat().st_size < size:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    file = path.open("r+b")
    file.truncate(size)
    file.seek(size)
    return file


def sync(file: IO[bytes]) -> int:
    """Put a file on disk; gives its size."""
    file.flush()
    os.fsync(file.fileno())
    return file.tell()
