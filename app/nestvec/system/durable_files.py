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


def write_whole(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a small file, whole or not at all, so that a crash leaves the old one or the new one.

    Raises:
        OSError: The disk is full or read-only; an earlier file is as it was.
    """
    draft = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
            sync(file)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
