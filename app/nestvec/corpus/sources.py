"""What is to be read: files, globs and standard input, one after the other as one corpus."""

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
class Source:
    """A file of texts.

    Attributes:
        kind: Key of `readers.READERS`.
    """

    path: Path
    kind: str

    @property
    def is_stdin(self) -> bool:
        """Whether it can be read only once."""
        return self.path == STDIN

    def identity(self) -> list[Any]:
        """What changes when the file does: path, size and time of change."""
        found = self.path.stat()
        return [str(self.path.resolve()), found.st_size, found.st_mtime_ns]


def find_sources(patterns: Sequence[str], stdin_format: str = "txt") -> tuple[Source, ...]:
    """Files that paths and globs mean, in the order given, each once.

    Args:
        patterns: Paths, globs (`**` crosses folders; their files come sorted), or "-" for standard input.
        stdin_format: What standard input holds: an ending of `readers.READERS` without its dot.

    Raises:
        FormatError: Nothing is there, it is a folder, or its ending is unknown.
    """
    found: dict[Path, Source] = {}
    for pattern in patterns:
        if pattern == STDIO:
            found[STDIN] = Source(STDIN, f".{stdin_format}")
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
            found.setdefault(path, Source(path, _kind(path)))
    return tuple(found.values())


def read_sources(sources: Sequence[Source], columns: Columns) -> Iterator[Record]:
    """All records of all sources. Where there are several, records without an id are numbered within each.

    Raises:
        FormatError: As `read_records`.
    """
    for source in sources:
        prefix = f"{source.path.name}:" if len(sources) > 1 else ""
        yield from read_records(source.path, replace(columns, number_prefix=prefix), source.kind)


def _kind(path: Path) -> str:
    kind = path.suffix.lower()
    if kind not in READERS:
        raise FormatError(f"{path}: unknown ending; known: {', '.join(READERS)}")
    return kind
