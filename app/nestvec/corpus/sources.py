"""Finds the texts of a corpus: files, globs and standard input, read one after the other."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from nestvec.corpus.readers import READERS, Columns, Record, read_records
from nestvec.errors import FormatError

STDIO: Final = "-"
STDIN: Final = Path("/dev/stdin")


@dataclass(frozen=True, slots=True)
class TextSource:
    """A file of texts, or standard input.

    Attributes:
        path: Where it lies; `STDIN` for standard input.
        kind: The format, a key of `readers.READERS`.
    """

    path: Path
    kind: str

    @property
    def is_stdin(self) -> bool:
        """Whether it is standard input, which can be read only once."""
        return self.path == STDIN

    def identity(self) -> list[Any]:
        """Return what changes when the file does: its path, its size in bytes and its time of change in ns."""
        stat = self.path.stat()
        return [str(self.path.resolve()), stat.st_size, stat.st_mtime_ns]


def find_sources(patterns: Sequence[str], stdin_format: str = "txt") -> tuple[TextSource, ...]:
    """Return the files that paths and globs name, in their order, each once.

    Args:
        patterns: Paths, globs (`**` crosses folders; their files come sorted), or "-" for standard input.
        stdin_format: The format of standard input: a key of `readers.READERS` without its dot.

    Raises:
        FormatError: A pattern matches nothing, a path is a folder, or its ending is unknown.
    """
    sources: dict[Path, TextSource] = {}
    for pattern in patterns:
        if pattern == STDIO:
            sources[STDIN] = TextSource(STDIN, f".{stdin_format}")
            continue
        # A file whose name happens to hold glob characters is taken as it is.
        is_literal = Path(pattern).exists()
        matches = [] if is_literal else glob.glob(pattern, recursive=True)  # noqa: PTH207 - absolute patterns too
        files = [Path(pattern)] if is_literal else sorted(map(Path, matches))
        files = [path for path in files if is_literal or path.is_file()]
        if not files:
            raise FormatError(f"{pattern}: no such file")
        for path in files:
            if path.is_dir():
                raise FormatError(f"{path}: is a folder; name its files, as in '{path}/*.jsonl'")
            sources.setdefault(path, TextSource(path, _kind(path)))
    return tuple(sources.values())


def read_sources(sources: Sequence[TextSource], columns: Columns) -> Iterator[Record]:
    """Yield all records of all sources; of several sources, records without an id are numbered within each.

    Raises:
        FormatError: A column is missing, or a record cannot be read; the error names the line.
    """
    for source in sources:
        prefix = f"{source.path.name}:" if len(sources) > 1 else ""
        yield from read_records(source.path, replace(columns, number_prefix=prefix), source.kind)


def _kind(path: Path) -> str:
    """Return a file's format by its ending.

    Raises:
        FormatError: The ending is unknown.
    """
    kind = path.suffix.lower()
    if kind not in READERS:
        raise FormatError(f"{path}: unknown ending; known: {', '.join(READERS)}")
    return kind
