"""Writing to the cache: whole or not at all, and failures that name the folder."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from nestvec.errors import ArtefactError


@contextmanager
def cache_writes(cache_dir: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an error that says which folder and why.

    Raises:
        ArtefactError: Any OSError of the block.
    """
    try:
        yield
    except OSError as error:
        raise ArtefactError(
            f"cache_dir {cache_dir} cannot be written: {error.strerror or error}; "
            "free space there or point NESTVEC_CACHE_DIR elsewhere"
        ) from error


def put_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside an artefact, whole or not at all; an earlier one is replaced.

    Args:
        path: Where it goes.
        write: Writes its content.

    Raises:
        ArtefactError: The cache cannot be written.
    """
    draft = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        with cache_writes(path.parent):
            with draft.open("wb") as file:
                write(file)
            draft.replace(path)
    except ArtefactError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def made(folder: Path) -> Path:
    """The folder, created if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sync_tree(folder: Path) -> None:
    """Flush every file of a folder to the disk, so that a rename after it never shows half a file."""
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def rename_into_place(finished: Path, target: Path) -> None:
    """Move a finished folder; where another process was first, its equal copy stays."""
    try:
        finished.rename(target)
    except OSError:
        if not target.is_dir():
            raise
