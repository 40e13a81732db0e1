"""A look at all records before any work: how many there are, whether ids come twice, what kept columns hold."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from nestvec.corpus.reading.readers import DOCUMENTS, PICTURES
from nestvec.corpus.reading.records import (
    ALL_COLUMNS,
    RESERVED_COLUMNS,
    Columns,
    Record,
    TextUnit,
)
from nestvec.corpus.reading.sources import TextSource, read_sources
from nestvec.corpus.rows import name_hash, row_id
from nestvec.corpus.store_writer import ColumnType, IdKind
from nestvec.errors import FormatError

MAX_INT64: Final = 2**63 - 1
# Formats whose records are named by their places, which are never the same twice.
NUMBERED: Final = (".txt", *DOCUMENTS, *PICTURES)


@dataclass(frozen=True, slots=True)
class CorpusScan:
    """What a corpus holds.

    Attributes:
        records: Number of records, None for standard input; documents without any text are counted as well.
        columns: Names and types of the kept columns.
    """

    records: int | None = None
    columns: Mapping[str, ColumnType] = field(default_factory=dict)


def scan(sources: Sequence[TextSource], columns: Columns, id_kind: IdKind) -> CorpusScan:
    """Read all records once.

    Raises:
        FormatError: A record cannot be read, or two have one id: both places are named.
    """
    _check_columns(sources, columns)
    if any(source.is_stdin for source in sources):
        if ALL_COLUMNS in columns.keep:
            raise FormatError(
                "the columns of standard input are not known ahead; name those to keep"
            )
        return CorpusScan(None, dict.fromkeys(columns.keep, ColumnType.JSON))
    hashes = array("Q")
    types: dict[str, ColumnType | None] = dict.fromkeys(
        name for name in columns.keep if name != ALL_COLUMNS
    )
    count = 0
    for source in sources:
        for record in _cheap_records(source, columns):
            count += 1
            if source.kind not in NUMBERED:
                hashes.append(_id_hash(record.id, id_kind))
            for name, value in record.columns.items():
                types[name] = _widened(types.get(name), value)
    if id_kind is not IdKind.SHA256:
        _refuse_doubles(hashes, sources, columns, id_kind)
    known = {name: kind or ColumnType.STRING for name, kind in types.items()}
    return CorpusScan(count, known)


def _check_columns(sources: Sequence[TextSource], columns: Columns) -> None:
    """Refuse columns that no record has, or that outputs have themselves.

    Raises:
        FormatError: One is such a column.
    """
    for column, flag in ((columns.context, "--context-column"), (columns.group, "--group-column")):
        if column:
            _refuse_without_columns(sources, flag)
    if named := RESERVED_COLUMNS & set(columns.keep):
        raise FormatError(f"'{min(named)}' is a column of the output's own; keep others")


def _refuse_without_columns(sources: Sequence[TextSource], flag: str) -> None:
    """Refuse sources that have no columns for a flag to take something from.

    Raises:
        FormatError: One has none.
    """
    for source in sources:
        if source.kind in NUMBERED:
            name = "standard input" if source.is_stdin else str(source.path)
            raise FormatError(
                f"{name}: {source.kind} files have no columns; {flag} reads records (.jsonl, .csv, .parquet, .arrow)"
            )


def unique(records: Iterator[Record], id_kind: IdKind) -> Iterator[Record]:
    """Yield records that are read only once, and refuse an id that comes again.

    Raises:
        FormatError: It does; both places are named.
    """
    numbers: dict[int, int] = {}
    for number, record in enumerate(records, start=1):
        first = numbers.setdefault(_id_hash(record.id, id_kind), number)
        if first != number:
            raise _double(f"record {first} of standard input", f"record {number}")
        yield record


def _cheap_records(source: TextSource, columns: Columns) -> Iterator[Record]:
    """Yield all records of a source; whole documents and pictures, which have no columns of their own, unread."""
    is_whole = source.kind in DOCUMENTS and columns.per in (None, TextUnit.FILE)
    if is_whole or source.kind in PICTURES:
        yield Record(source.name, "", str(source.path))
    else:
        yield from read_sources((source,), columns)


def _id_hash(record_id: str, id_kind: IdKind) -> int:
    """Return what tells ids apart: as integers where they become integers."""
    if id_kind is IdKind.INT:
        return int(row_id(id_kind, record_id, "", 0, ""))
    return name_hash(record_id)


def _refuse_doubles(
    hashes: "array[int]", sources: Sequence[TextSource], columns: Columns, id_kind: IdKind
) -> None:
    """Refuse two records of one id.

    Eight bytes a record tell whether there can be any; only then are the records read again.

    Raises:
        FormatError: There are two; both places are named.
    """
    ordered = np.sort(np.frombuffer(hashes, np.uint64)) if hashes else np.zeros(0, np.uint64)
    doubled = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not doubled:
        return
    places: dict[int | str, str] = {}
    of_records = [source for source in sources if source.kind not in NUMBERED]
    for record in read_sources(of_records, columns):
        if (value := _id_hash(record.id, id_kind)) in doubled:
            key = value if id_kind is IdKind.INT else record.id
            if key in places:
                raise _double(places[key], record.where)
            places[key] = record.where


def _double(first: str, second: str) -> FormatError:
    """Return the error of two records of one id."""
    return FormatError(
        f"{first} and {second} have the same id, and one would replace the other; "
        "choose another column with --id-column, or let --id sha256 make ids of the texts (rows of one group must "
        "follow one another in one file)"
    )


def _widened(known: ColumnType | None, value: object) -> ColumnType | None:
    """Return a column's type once it holds a value too."""
    if value is None:
        return known
    kind = ColumnType.JSON
    if isinstance(value, bool):
        kind = ColumnType.BOOL
    elif isinstance(value, int) and -MAX_INT64 <= value <= MAX_INT64:
        kind = ColumnType.INT
    elif isinstance(value, float):
        kind = ColumnType.FLOAT
    elif isinstance(value, str):
        kind = ColumnType.STRING
    if known is None or known is kind:
        return kind
    if {known, kind} == {ColumnType.INT, ColumnType.FLOAT}:
        return ColumnType.FLOAT
    return ColumnType.JSON
