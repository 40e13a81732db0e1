"""Writing to the cache folder: whole or not at all, with errors that name the folder."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from nestvec.errors import ArtefactError
from nestvec.system.durable_files import atomic_write


@contextmanager
def cache_writes(cache_dir: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an error that says which folder it is and what to do.

    Raises:
        ArtefactError: The block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ArtefactError(
            f"cache_dir {cache_dir} cannot be written: {error.strerror or error}; "
            "free space there or point NESTVEC_CACHE_DIR elsewhere"
        ) from error


@contextmanager
def atomic_cache_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file of the cache that replaces `path` once the block has ended; see `atomic_write`.

    Raises:
        ArtefactError: The cache cannot be written; an earlier file stays as it was.
    """
    with cache_writes(path.parent), atomic_write(path) as file:
        yield file


def ensure_dir(folder: Path) -> Path:
    """Return the folder, created with its parents if it was missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sync_tree(folder: Path) -> None:
    """Flush every file of a folder to the disk, so that a rename after it never shows half a file."""
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def flush_behind(folder: Path) -> Future[None]:
    """Flush a folder's files to the disk in a thread, while the caller goes on: `sync_tree` then has little left.

    Returns:
        Done once they are flushed; an OSError where one could not be.
    """
    executor = ThreadPoolExecutor(1, "flush")
    try:
        return executor.submit(sync_tree, folder)
    finally:
        executor.shutdown(wait=False)


def rename_into_place(finished: Path, target: Path) -> None:
    """Rename a finished folder to its final name; where another process was first, its equal copy stays."""
    try:
        finished.rename(target)
    except OSError:
        if not target.is_dir():
            raise
