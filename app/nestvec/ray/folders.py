"""Folders and Parquet files of a run, on a disk that all nodes see or in an object store, by Arrow's own file systems.

Ray Data reads, writes and keeps checkpoints through `pyarrow.fs`, so paths are resolved by it here too. Access keys and
endpoints come from the environment variables of each service (AWS_…, GOOGLE_…, AZURE_…), on every node.
"""

import fnmatch
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nestvec.errors import ArtefactError, FormatError

ENDING: Final = ".parquet"
MAGIC: Final = "*?["
RECURSIVE: Final = "**"
WRITE_HINT: Final = (
    "every node must see it: a shared disk, or an object store (s3://, gs://, abfs://)"
)


@dataclass(frozen=True, slots=True)
class ArrowPath:
    """A path on a file system of Arrow.

    Attributes:
        filesystem: The file system.
        path: The path on it, without a scheme.
        is_local: Whether it is a path of this machine.
    """

    filesystem: Any
    path: str
    is_local: bool

    def beside(self, ending: str) -> "ArrowPath":
        """Return the place of the same name with an ending added."""
        return ArrowPath(self.filesystem, self.path + ending, self.is_local)

    def inside(self, name: str) -> "ArrowPath":
        """Return the place of an entry of this folder."""
        return ArrowPath(self.filesystem, posixpath.join(self.path, name), self.is_local)

    def entries(self, *, is_recursive: bool = False) -> list[Any]:
        """Return what a folder holds, sorted by path; nothing where there is no folder.

        Raises:
            ArtefactError: It cannot be listed.
        """
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.path, recursive=is_recursive, allow_not_found=True)
        try:
            return sorted(self.filesystem.get_file_info(selector), key=lambda info: str(info.path))
        except OSError as error:
            raise ArtefactError(f"{self.path}: cannot be listed ({error})") from error

    def read(self) -> bytes | None:
        """Return what a file holds; None where there is none.

        Raises:
            ArtefactError: It cannot be read.
        """
        from pyarrow.fs import FileType

        try:
            if self.filesystem.get_file_info(self.path).type is FileType.NotFound:
                return None
            with self.filesystem.open_input_stream(self.path) as stream:
                return bytes(stream.read())
        except OSError as error:
            raise ArtefactError(f"{self.path}: cannot be read ({error})") from error

    def write(self, content: bytes) -> None:
        """Write a file, which is there whole or not at all.

        Raises:
            ArtefactError: It cannot be written.
        """
        try:
            self.filesystem.create_dir(posixpath.dirname(self.path), recursive=True)
            # An object store takes over an object when it is closed, and a disk a file when it is moved.
            draft = f"{self.path}.draft" if self.is_local else self.path
            with self.filesystem.open_output_stream(draft) as stream:
                stream.write(content)
            if self.is_local:
                self.filesystem.move(draft, self.path)
        except OSError as error:
            raise ArtefactError(
                f"{self.path}: cannot be written ({error}); {WRITE_HINT}"
            ) from error

    def remove(self) -> None:
        """Remove a folder and all that it holds, where there is one.

        Raises:
            ArtefactError: It cannot be removed.
        """
        from pyarrow.fs import FileType

        try:
            if self.filesystem.get_file_info(self.path).type is not FileType.NotFound:
                self.filesystem.delete_dir(self.path)
        except OSError as error:
            raise ArtefactError(f"{self.path}: cannot be removed ({error})") from error


def arrow_path(path: str) -> ArrowPath:
    """Find the file system of a path, or of a URL such as s3://bucket/folder.

    Raises:
        FormatError: There is none of its scheme.
    """
    import pyarrow as pa
    from pyarrow.fs import FileSystem, LocalFileSystem

    if "://" not in path:
        return ArrowPath(LocalFileSystem(), os.path.abspath(path), is_local=True)  # noqa: PTH100 - resolve() follows links
    try:
        filesystem, inner = FileSystem.from_uri(path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, ValueError) as error:
        raise FormatError(
            f"{path}: no file system of Arrow has this address; use a path, s3://, gs:// or abfs://"
        ) from error
    inner = inner.rstrip("/")
    if isinstance(filesystem, LocalFileSystem):
        return ArrowPath(filesystem, inner, is_local=True)
    return ArrowPath(filesystem, inner, is_local=False)


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The Parquet files of a run.

    Attributes:
        filesystem: The file system of all of them.
        paths: Their paths, sorted.
        identity: What changes when one of them does: path, size in bytes, time of change in ns.
    """

    filesystem: Any
    paths: list[str]
    identity: list[list[Any]]


def find_parquet(patterns: Sequence[str]) -> SourceFiles:
    """Find the Parquet files that paths, folders and globs name, each once.

    Folders are read with the folders in them; what begins with "." or "_" is left out, as every reader of Parquet
    folders does. `*`, `?` and `[…]` stand for parts of one name; in a URL `*` alone, as options follow its "?".

    Raises:
        FormatError: A pattern names no such file, or the files lie on different file systems.
    """
    found: dict[str, Any] = {}
    filesystem: Any = None
    for pattern in patterns:
        place = arrow_path(pattern)
        if filesystem is not None and not filesystem.equals(place.filesystem):
            raise FormatError(f"{pattern}: all sources of a run must lie on one file system")
        filesystem = place.filesystem
        matches = {info.path: info for info in _matches(place)}
        if not matches:
            raise FormatError(f"{pattern}: no Parquet file ({ENDING}) there; --ray reads no others")
        found |= matches
    infos = [found[path] for path in sorted(found)]
    return SourceFiles(
        filesystem,
        [info.path for info in infos],
        [[info.path, info.size, info.mtime_ns] for info in infos],
    )


def _matches(place: ArrowPath) -> Iterator[Any]:
    """Yield the files that a pattern names.

    Raises:
        FormatError: The pattern cannot be, or the place cannot be looked at.
    """
    from pyarrow.fs import FileType

    try:
        info = place.filesystem.get_file_info(place.path)
    except OSError as error:
        raise FormatError(f"{place.path}: cannot be read ({error})") from error
    if info.type is FileType.File:
        if not place.path.lower().endswith(ENDING):
            raise FormatError(f"{place.path}: --ray reads Parquet files ({ENDING}) only")
        yield info
        return
    root, parts = place.path, list[str]()
    if info.type is FileType.NotFound:
        # What happens to hold glob characters was taken as it is.
        root, parts = _split_glob(place.path)
        if not parts:
            return
    inside = ArrowPath(place.filesystem, root, place.is_local)
    for entry in inside.entries(is_recursive=len(parts) != 1):
        names = posixpath.relpath(entry.path, root).split("/")
        is_hidden = any(name[0] in "._" for name in names)
        if entry.type is FileType.File and not is_hidden and _is_match(names, parts):
            yield entry


def _split_glob(path: str) -> tuple[str, list[str]]:
    """Return the folder before a glob's first wildcard, and the names behind it; no names where there is no wildcard.

    Raises:
        FormatError: A wildcard crosses folders.
    """
    names = path.split("/")
    first = next((n for n, name in enumerate(names) if set(name) & set(MAGIC)), len(names))
    if RECURSIVE in names:
        raise FormatError(
            f"{path}: name the folder before {RECURSIVE}; it is read with the folders in it"
        )
    return "/".join(names[:first]), names[first:]


def _is_match(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether a file below a root is meant: every Parquet file is where there are no names to compare."""
    if not names[-1].lower().endswith(ENDING):
        return False
    if not parts:
        return True
    return len(names) == len(parts) and all(map(fnmatch.fnmatchcase, names, parts))
