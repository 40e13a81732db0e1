"""Reads texts from TXT, JSONL, CSV, Parquet and Arrow files, a record at a time."""

import csv
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.system.extras import how_to_install
from nestvec.system.json_files import load_json
from nestvec.system.unicode import replace_lone_surrogates

PARQUET_ROWS: Final = 1024


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns to read.

    Attributes:
        text: Name of the column that holds the text.
        id: Name of the column that holds the record's id; None takes "id" where it exists, else the record's number
            from 0.
        number_prefix: Text before such a number, so that the records of several files are told apart.
    """

    text: str = "text"
    id: str | None = None
    number_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One text of a file.

    Attributes:
        id: The record's id, by `Columns`.
        text: The text, in valid Unicode.
        where: File and line, or row, from 1; for messages.
    """

    id: str
    text: str
    where: str


def read_records(path: Path, columns: Columns, kind: str) -> Iterator[Record]:
    """Yield the records of a file.

    Args:
        path: The file.
        columns: The columns to read of each record.
        kind: The file's format, a key of `READERS`.

    Raises:
        FormatError: A column is missing, or a record cannot be read; the error names the line.
    """
    try:
        yield from READERS[kind](path, columns)
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not valid UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read_txt(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield a text for each line."""
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file):
            name = f"{columns.number_prefix}{number}"
            yield Record(name, line.rstrip("\r\n"), f"{path}:{number + 1}")


def _read_jsonl(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield a record for each line, which is an object or a bare string; blank lines are passed over."""
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        number = 0
        for line_number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = load_json(line)
            except ValueError as error:
                raise FormatError(f"{path}:{line_number}: not JSON ({error})") from error
            row = {columns.text: value} if isinstance(value, str) else value
            if not isinstance(row, dict):
                raise FormatError(f"{path}:{line_number}: expected an object or a string")
            yield _record(row, columns, f"{path}:{line_number}", number)
            number += 1


def _read_csv(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield a record for each row below the header line."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for number, row in enumerate(reader):
                yield _record(row, columns, f"{path}:{reader.line_num}", number)
        except csv.Error as error:
            raise FormatError(f"{path}:{reader.line_num}: {error}") from error


def _read_parquet(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield a record for each row, read in batches; needs pyarrow."""
    parquet = import_parquet()
    import pyarrow

    try:
        file = parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise FormatError(f"{path}: not a Parquet file ({error})") from error
    present = set(file.schema_arrow.names)
    names = [name for name in (columns.text, columns.id or "id") if name in present]
    number = 0
    for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=names):
        for row in batch.to_pylist():
            yield _record(row, columns, f"{path}:{number + 1}", number)
            number += 1


def _read_arrow(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield a record for each row of an Arrow IPC file, as Feather version 2 is, batch by batch; needs pyarrow."""
    import_parquet()
    import pyarrow

    try:
        file = pyarrow.ipc.open_file(path)
    except pyarrow.ArrowInvalid as error:
        raise FormatError(f"{path}: not an Arrow IPC file ({error})") from error
    with file:
        number = 0
        for index in range(file.num_record_batches):
            batch = file.get_batch(index)
            present = batch.schema.names
            names = [name for name in (columns.text, columns.id or "id") if name in present]
            for row in batch.select(names).to_pylist():
                yield _record(row, columns, f"{path}:{number + 1}", number)
                number += 1


def _record(row: Mapping[str, Any], columns: Columns, where: str, number: int) -> Record:
    """Return a row as a record.

    Raises:
        FormatError: A column is missing, or the text column holds no text.
    """
    if columns.text not in row:
        raise FormatError(f"{where}: no column '{columns.text}'; choose one with --text-column")
    text = row[columns.text]
    if not isinstance(text, str):
        raise FormatError(f"{where}: column '{columns.text}' holds no text")
    if columns.id is not None and columns.id not in row:
        raise FormatError(f"{where}: no column '{columns.id}'")
    identity = row.get(columns.id or "id")
    name = f"{columns.number_prefix}{number}" if identity is None else str(identity)
    return Record(replace_lone_surrogates(name), replace_lone_surrogates(text), where)


def import_parquet() -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return the module `pyarrow.parquet`.

    Raises:
        FormatError: It is not installed; the error says how to get it.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise FormatError(f"Parquet and Arrow need pyarrow: {how_to_install('parquet')}") from error
    return pyarrow.parquet


READERS: Final[Mapping[str, Callable[[Path, Columns], Iterator[Record]]]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".feather": _read_arrow,
}
# Formats that can be read from a pipe; the others are read from their end.
STREAMABLE: Final = (".txt", ".jsonl", ".csv")
