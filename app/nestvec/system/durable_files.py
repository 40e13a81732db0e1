"""Files that survive a crash: replaced atomically, or resumed behind a size that was synced before it was noted."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def open_truncated(path: Path, size: int) -> IO[bytes]:
    """Open a file for writing behind its first `size` bytes and drop the rest; a size of 0 starts a new file.

    Raises:
        FileNotFoundError: The file does not hold that many bytes.
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
    """Flush what was written to the disk (fsync) and return the size of the file so far, in bytes."""
    file.flush()
    os.fsync(file.fileno())
    return file.tell()


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_write(path: Path, *, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """Open a file that replaces `path` once the block has ended: temporary name beside it, fsync, rename.

    A crash leaves either the old file or the new one, and so does a block that raises.

    Args:
        path: The file to make or replace.
        mode: Its permissions, less the process's umask.

    Raises:
        OSError: The disk is full or read-only; an earlier file stays as it was.
    """
    draft = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            yield file
            sync(file)
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
