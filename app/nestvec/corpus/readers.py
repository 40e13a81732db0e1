"""Reads texts from TXT, JSONL, CSV, Parquet and Arrow files and from documents, and pictures, a record at a time."""

import csv
import gzip
import hashlib
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Final

from nestvec.corpus.extraction import EXTRACTORS
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.text.preparation.record_template import RecordTemplate
from nestvec.errors import FormatError, InputError
from nestvec.system.extras import how_to_install
from nestvec.system.json_files import load_json
from nestvec.system.unicode import replace_lone_surrogates

PARQUET_ROWS: Final = 1024
# More than any is embedded of: what is larger is not read into memory to be refused.
MAX_PICTURE_BYTES: Final = 256 * 1024 * 1024
GZIP: Final = ".gz"
ALL_COLUMNS: Final = "all"
# What outputs call their own columns.
RESERVED_COLUMNS: Final = frozenset(
    (
        *("id", "document", "start", "end", "text", "embedding", "indices", "values"),
        *("chunk", "chunks", "content_hash"),
    )
)
# Between two paragraphs: a blank line, or several.
BLANK_LINES: Final = re.compile(r"(?:[^\S\n]*\n){2,}")


class TextUnit(StrEnum):
    """What is one text of a file without records."""

    LINE = "line"
    PARAGRAPH = "paragraph"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Columns:
    """What to read of each record.

    Attributes:
        text: Name of the column that holds the text.
        template: How several columns are written as the text, in place of `text`; "" where one holds it.
        id: Name of the column that holds the record's id; None takes "id" where it exists, else the record's number
            from 0.
        needs_id: Whether a record must have an id of its own.
        number_prefix: Text before such a number, so that the records of several files are told apart.
        keep: Names of columns to keep; `ALL_COLUMNS` alone for all but those of text and id.
        per: What is one text of a file without records; None: a line of a .txt file, the whole of a document.
        file_name: The id of a file that is one text.
        context: Name of the column whose text is read before the record's and left out of the pooling; "" for none.
        group: Name of the column whose equal values, one row after the other, make one record; "" for none.
        weight: Name of the column with a row's weight in its group; "" where all weigh the same.
    """

    text: str = "text"
    id: str | None = None
    needs_id: bool = False
    number_prefix: str = ""
    keep: tuple[str, ...] = ()
    per: TextUnit | None = None
    file_name: str = ""
    template: str = field(default="", repr=False)
    context: str = field(default="", repr=False)
    group: str = field(default="", repr=False)
    weight: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Record:
    """One text of a file, or a picture.

    Attributes:
        id: The record's id, by `Columns`.
        text: The text, in valid Unicode.
        where: File and line, or row, from 1; for messages.
        columns: The columns that are kept, as they were read.
        context: What is read before the text and left out of the pooling, "" for nothing.
        weight: What the text weighs in its group.
        members: The records that make one vector together, where this is a group of such; it has the name of their
            group, the columns of the first, and their texts one a line.
        picture: What is embedded in place of a text, which is empty then.
    """

    id: str
    text: str
    where: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    context: str = ""
    weight: float = 1.0
    members: tuple["Record", ...] = ()

    @property
    def texts(self) -> tuple["Record", ...]:
        """The records whose texts are read, in order: the members, or the record itself."""
        return self.members or (self,)

    picture: Picture | None = None

    @property
    def identity(self) -> str:
        """The text, or for a picture what is the same for equal files only, and is no text of any corpus."""
        if self.picture is None:
            return self.text
        return f"\0picture {hashlib.sha256(self.picture.data).hexdigest()}"


def read_records(path: Path, columns: Columns, kind: str) -> Iterator[Record]:
    """Yield the records of a file.

    Args:
        path: The file.
        columns: The columns to read of each record.
        kind: The file's format, a key of `READERS`, or one of `PICTURES`.

    Raises:
        FormatError: A column is missing, or a record cannot be read; the error names the line.
    """
    try:
        yield from (_read_picture if kind in PICTURES else READERS[kind])(path, columns)
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not valid UTF-8 (byte {error.start})") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: not a whole gzip file ({error})") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error})") from error


def _open_text(path: Path, newline: str) -> IO[str]:
    """Open a file as UTF-8, unpacked if it is packed by gzip."""
    if path.suffix.lower() == GZIP:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline=newline)
    return path.open(encoding="utf-8-sig", newline=newline)


def _read_picture(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield a picture, whose file is read as it is; whether it can be decoded shows when it is embedded.

    Raises:
        FormatError: The file is far too large for one.
    """
    with path.open("rb") as file:
        content = file.read(MAX_PICTURE_BYTES + 1)
    if len(content) > MAX_PICTURE_BYTES:
        raise FormatError(f"{path}: a picture of more than {MAX_PICTURE_BYTES} bytes")
    yield Record(columns.file_name or path.name, "", str(path), picture=Picture(content))


def _read_txt(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield a text for each line, unless paragraphs or the whole are asked for."""
    with _open_text(path, "\n") as file:
        if columns.per in (TextUnit.PARAGRAPH, TextUnit.FILE):
            yield from _records_of_text(file.read(), path, columns)
            return
        for number, line in enumerate(file):
            name = f"{columns.number_prefix}{number}"
            yield Record(name, replace_lone_surrogates(line.rstrip("\r\n")), f"{path}:{number + 1}")


def _read_document(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield the whole of a document, unless lines or paragraphs are asked for."""
    kind = path.with_suffix("").suffix if path.suffix.lower() == GZIP else path.suffix
    extractor = EXTRACTORS.get(kind.lower())
    if extractor is None:
        with _open_text(path, "\n") as file:
            text = file.read()
    else:
        content = path.read_bytes()
        try:
            text = extractor.text(gzip.decompress(content) if kind != path.suffix else content)
        except ValueError as error:
            raise FormatError(f"{path}: {error}") from error
    yield from _records_of_text(replace_lone_surrogates(text), path, columns)


def _records_of_text(text: str, path: Path, columns: Columns) -> Iterator[Record]:
    """Yield the lines, the paragraphs or the whole of a text; what is blank is left out."""
    if columns.per is TextUnit.LINE:
        parts = text.splitlines()
    elif columns.per is TextUnit.PARAGRAPH:
        parts = BLANK_LINES.split(text.replace("\r\n", "\n"))
    else:
        if text.strip():
            yield Record(columns.file_name or path.name, text, str(path))
        return
    for number, part in enumerate(part for part in parts if part.strip()):
        where = f"{path}: {columns.per} {number + 1}"
        yield Record(f"{columns.number_prefix}{number}", part.strip("\n"), where)


def _read_jsonl(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield a record for each line, which is an object or a bare string; blank lines are passed over."""
    with _open_text(path, "\n") as file:
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
            yield record_of(row, columns, f"{path}:{line_number}", number)
            number += 1


def _read_csv(path: Path, columns: Columns) -> Iterator[Record]:
    """Yield a record for each row below the header line."""
    csv.field_size_limit(sys.maxsize)
    with _open_text(path, "") as file:
        reader = csv.DictReader(file)
        try:
            for number, row in enumerate(reader):
                yield record_of(row, columns, f"{path}:{reader.line_num}", number)
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
    names = wanted_columns(file.schema_arrow.names, columns)
    number = 0
    for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=names):
        for row in batch.to_pylist():
            yield record_of(row, columns, f"{path}:{number + 1}", number)
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
            names = wanted_columns(batch.schema.names, columns)
            for row in batch.select(names).to_pylist():
                yield record_of(row, columns, f"{path}:{number + 1}", number)
                number += 1


def wanted_columns(present: Sequence[str], columns: Columns) -> list[str]:
    """Return which of a table's columns to read."""
    if columns.keep == (ALL_COLUMNS,):
        return list(present)
    of_text = _template(columns.template).fields if columns.template else ()
    of_groups = (columns.group, columns.weight)
    named = (columns.text, *of_text, columns.context, *of_groups, columns.id or "id", *columns.keep)
    wanted = dict.fromkeys(named)
    return [name for name in wanted if name in present]


def record_of(row: Mapping[str, Any], columns: Columns, where: str, number: int) -> Record:
    """Return a row as a record.

    Raises:
        FormatError: A column is missing, or there is no text in it.
    """
    text = _text(row, columns, where)
    id_column = columns.id or "id"
    if (columns.id is not None or columns.needs_id) and id_column not in row:
        raise FormatError(f"{where}: no column '{id_column}'")
    identity = row.get(id_column)
    if identity is None and columns.needs_id:
        raise FormatError(f"{where}: column '{id_column}' is empty")
    name = f"{columns.number_prefix}{number}" if identity is None else str(identity)
    if columns.group:
        name = str(_value(row, columns.group, "--group-column", where))
    return Record(
        replace_lone_surrogates(name),
        replace_lone_surrogates(text),
        where,
        columns=_kept(row, columns, where),
        context=_context(row, columns.context, where) if columns.context else "",
        weight=_weight(row, columns.weight, where) if columns.weight else 1.0,
    )


def _text(row: Mapping[str, Any], columns: Columns, where: str) -> str:
    """Return a row's text: what a column holds, or the template makes of several.

    Raises:
        FormatError: The column is missing or holds no text, or the row has nothing for the template.
    """
    template = _template(columns.template) if columns.template else None
    if template is not None and not (
        columns.text in row and row.keys().isdisjoint(template.fields)
    ):
        try:
            return template.text(row)
        except InputError as error:
            raise FormatError(f"{where}: {error.message}") from error
    if columns.text not in row:
        raise FormatError(f"{where}: no column '{columns.text}'; choose one with --text-column")
    text = row[columns.text]
    if not isinstance(text, str):
        raise FormatError(f"{where}: column '{columns.text}' holds no text")
    return text


def _context(row: Mapping[str, Any], column: str, where: str) -> str:
    """Return a row's context; an empty column is none.

    Raises:
        FormatError: The column is missing or holds no text.
    """
    if column not in row:
        raise FormatError(f"{where}: no column '{column}' for --context-column")
    context = row[column]
    if context is None:
        return ""
    if not isinstance(context, str):
        raise FormatError(f"{where}: column '{column}' holds no text for --context-column")
    return replace_lone_surrogates(context)


def _value(row: Mapping[str, Any], column: str, flag: str, where: str) -> Any:  # noqa: ANN401 - any column
    """Return what a row holds in a column.

    Raises:
        FormatError: There is no such column, or it is empty.
    """
    if column not in row:
        raise FormatError(f"{where}: no column '{column}' for {flag}")
    if row[column] in (None, ""):
        raise FormatError(f"{where}: column '{column}' is empty for {flag}")
    return row[column]


def _weight(row: Mapping[str, Any], column: str, where: str) -> float:
    """Return what a row's text weighs in its group.

    Raises:
        FormatError: The column is missing, or holds no finite number.
    """
    value = _value(row, column, "--weight-column", where)
    try:
        weight = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not math.isfinite(weight):
        raise FormatError(f"{where}: column '{column}' holds no finite number for --weight-column")
    return weight


@lru_cache(maxsize=8)
def _template(source: str) -> RecordTemplate:
    """Return a template, which is read once for all rows."""
    return RecordTemplate(source)


def _kept(row: Mapping[str, Any], columns: Columns, where: str) -> dict[str, Any]:
    """Return the columns of a row that are kept.

    Raises:
        FormatError: One is missing.
    """
    if not columns.keep:
        return {}
    if columns.keep == (ALL_COLUMNS,):
        left_out = RESERVED_COLUMNS | {columns.text, columns.id}
        return {str(name): value for name, value in row.items() if name not in left_out}
    if missing := [name for name in columns.keep if name not in row]:
        raise FormatError(f"{where}: no column '{missing[0]}' to keep")
    return {name: row[name] for name in columns.keep}


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
    ".md": _read_document,
    ".markdown": _read_document,
    ".rst": _read_document,
    **dict.fromkeys(EXTRACTORS, _read_document),
}
TABLES: Final = (".parquet", ".arrow", ".feather")
# Pictures, for models that take them; by any of these endings, as a file's first bytes tell what it is.
PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
# Files without records, each of which is one text unless lines or paragraphs are asked for.
DOCUMENTS: Final = (".md", ".markdown", ".rst", *EXTRACTORS)
# Formats that can be read from a pipe; the others are read from their end.
STREAMABLE: Final = (".txt", ".jsonl", ".csv")
