"""Finds the texts and pictures of a corpus: files, folders, globs and standard input, read one after the other."""

import glob
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from nestvec.corpus.reading.extraction import check_extractor
from nestvec.corpus.reading.readers import (
    GZIP,
    PICTURES,
    READERS,
    TABLES,
    import_parquet,
    read_records,
)
from nestvec.corpus.reading.records import Columns, Record
from nestvec.engine.vectors.groups import Groups
from nestvec.errors import FormatError, InputError

STDIO: Final = "-"
STDIN: Final = Path("/dev/stdin")
# As many inputs as a call takes by default: a group is one call's, or part of one.
MAX_GROUP_TEXTS: Final = 2048


@dataclass(frozen=True, slots=True)
class TextSource:
    """A file of texts, or standard input.

    Attributes:
        path: Where it lies; `STDIN` for standard input.
        kind: The format, a key of `readers.READERS`.
        name: Its path below the root that all sources have in common, by which its records are named; "" for a lone
            file, whose records need no name before their numbers.
    """

    path: Path
    kind: str
    name: str = ""

    @property
    def is_stdin(self) -> bool:
        """Whether it is standard input, which can be read only once."""
        return self.path == STDIN

    def identity(self) -> list[Any]:
        """Return what changes when the file does: its path, its size in bytes and its time of change in ns."""
        stat = self.path.stat()
        return [str(self.path.resolve()), self.name, stat.st_size, stat.st_mtime_ns]


class PictureFiles(StrEnum):
    """Which pictures are sources."""

    NONE = "none"
    NAMED = "named"  # by a path or a glob
    ALL = "all"  # those of folders too


def find_sources(
    patterns: Sequence[str],
    stdin_format: str = "txt",
    *,
    names_all: bool = False,
    pictures: PictureFiles = PictureFiles.NONE,
) -> tuple[TextSource, ...]:
    """Return the files that paths, folders and globs name, in their order, each once.

    A file's name in ids is its path below the root: what comes before the wildcards of a glob, the folder that holds a
    folder or a file; of several patterns, the folder that all these have in common. So it stays the same as files come
    and go.

    Args:
        patterns: Paths, folders (their files come sorted, hidden ones and those of unknown endings left out), globs
            (`**` crosses folders; their files come sorted), or "-" for standard input.
        stdin_format: The format of standard input: a key of `readers.READERS` without its dot.
        names_all: Whether a lone file is named too, as in an output that several runs write.
        pictures: Which pictures are taken.

    Raises:
        FormatError: A pattern matches nothing that can be read, an ending is unknown, or a package is missing that
            reads it.
    """
    kinds: dict[Path, str] = {}
    seen: set[Path] = set()
    roots: list[Path] = []
    is_lone_file = len(patterns) == 1 and Path(patterns[0]).is_file()
    for pattern in patterns:
        if pattern == STDIO:
            kinds[STDIN] = f".{stdin_format}"
            continue
        files, root = _matches(pattern, with_pictures=pictures is PictureFiles.ALL)
        roots.append(root)
        for path in files:
            if (absolute := _absolute(path)) not in seen:
                seen.add(absolute)
                kinds[path] = _kind(path, with_pictures=pictures is not PictureFiles.NONE)
    for kind in dict.fromkeys(kinds.values()):
        check_extractor(kind)
        if kind in TABLES:
            import_parquet()
    if is_lone_file and not names_all:
        return tuple(TextSource(path, kind) for path, kind in kinds.items())
    root = Path(os.path.commonpath(roots)) if roots else Path()
    return tuple(
        TextSource(path, kind, STDIN.name if path == STDIN else _name(path, root))
        if len(kinds) > 1 or path != STDIN
        else TextSource(path, kind)
        for path, kind in kinds.items()
    )


def read_sources(sources: Sequence[TextSource], columns: Columns) -> Iterator[Record]:
    """Yield all records of all sources; records without an id are numbered within each, groups end with their file.

    Raises:
        FormatError: A column is missing, or a record cannot be read; the error names the line.
    """
    for source in sources:
        named = replace(
            columns,
            number_prefix=f"{source.name}:" if source.name else "",
            file_name=source.name or source.path.name,
        )
        records = read_records(source.path, named, source.kind)
        yield from _groups(records, columns.weight) if columns.group else records


def _groups(records: Iterator[Record], weight_column: str) -> Iterator[Record]:
    """Yield a record for each run of records of one name, which is their group's.

    Raises:
        FormatError: A group is too large for a call, or its weights cannot be; the error names where it begins.
    """
    for name, run in itertools.groupby(records, lambda record: record.id):
        members = tuple(itertools.islice(run, MAX_GROUP_TEXTS + 1))
        first = members[0]
        if len(members) > MAX_GROUP_TEXTS:
            raise FormatError(
                f"{first.where}: the group that begins here has more than {MAX_GROUP_TEXTS} texts, which is what one "
                "call takes; join some of them"
            )
        if weight_column:
            try:
                weights = tuple(member.weight for member in members)
                Groups((len(members),), weights).check(len(members))
            except InputError as error:
                raise FormatError(
                    f"{first.where}: the weights of the group that begins here must sum to more than zero"
                ) from error
        text = "\n".join(member.text for member in members)
        yield Record(name, text, first.where, first.columns, members=members)


def left_out(folders: Sequence[str], *, with_pictures: bool = False) -> Counter[str]:
    """Count the files of folders that are not read, by their endings.

    Args:
        folders: The folders; other paths are passed over.
        with_pictures: Whether their pictures are read.
    """
    endings: Counter[str] = Counter()
    for folder in folders:
        if Path(folder).is_dir():
            paths = _walk(Path(folder))
            endings.update(
                path.suffix.lower()
                for path in paths
                if not _is_readable(path, with_pictures=with_pictures)
            )
    return endings


def _matches(pattern: str, *, with_pictures: bool) -> tuple[list[Path], Path]:
    """Return the files that a pattern names, and the folder below which they are named.

    Raises:
        FormatError: There is none.
    """
    path = Path(pattern)
    if path.is_dir():
        return _files_below(path, with_pictures=with_pictures), _absolute(path).parent
    if path.exists():  # what happens to hold glob characters is taken as it is
        return [path], _absolute(path).parent
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 - absolute patterns too
    files = [match for match in map(Path, sorted(matches)) if match.is_file()]
    if not files:
        raise FormatError(f"{pattern}: no such file")
    return files, _glob_root(pattern)


def _files_below(folder: Path, *, with_pictures: bool) -> list[Path]:
    """Return the files of a folder that can be read, sorted.

    Raises:
        FormatError: There is none.
    """
    paths = sorted(_walk(folder))
    files = [path for path in paths if _is_readable(path, with_pictures=with_pictures)]
    if not files and any(_ending(path) in PICTURES for path in paths):
        raise FormatError(
            f"{folder}: holds pictures and no texts; with --pictures they are read, for models that take them"
        )
    if not files:
        raise FormatError(f"{folder}: holds no file of a known ending: {', '.join(READERS)}")
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and of those in it, hidden ones left out."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent) / name for name in names if not name.startswith("."))


def _is_readable(path: Path, *, with_pictures: bool) -> bool:
    """Whether files of a path's ending are read."""
    ending = _ending(path)
    return ending in READERS or (with_pictures and ending in PICTURES)


def _ending(path: Path) -> str:
    """Return a path's ending, that before `.gz` for packed texts."""
    ending = path.suffix.lower()
    inner = path.with_suffix("").suffix.lower()
    return inner if ending == GZIP and inner not in TABLES else ending


def _kind(path: Path, *, with_pictures: bool) -> str:
    """Return a file's format by its ending.

    Raises:
        FormatError: The ending is unknown.
    """
    kind = _ending(path)
    if kind not in READERS and not (with_pictures and kind in PICTURES):
        known = ", ".join((*READERS, *PICTURES) if with_pictures else READERS)
        raise FormatError(
            f"{path}: unknown ending; known: {known}, those of texts also with {GZIP}"
        )
    return kind


def _absolute(path: Path) -> Path:
    """Return a path from the root on, symbolic links left as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() follows links


def _glob_root(pattern: str) -> Path:
    """Return the folder before a pattern's first wildcard."""
    parts = Path(pattern).parts
    fixed = [*itertools.takewhile(lambda part: not glob.has_magic(part), parts)]
    return _absolute(Path(*fixed))


def _name(path: Path, root: Path) -> str:
    """Return a file's path below the root, with forward slashes."""
    return _absolute(path).relative_to(root).as_posix()
