"""Reads texts from TXT, JSONL, CSV, Parquet and Arrow files and from documents, and pictures, a record at a time."""

import csv
import gzip
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from nestvec.corpus.reading.extraction import EXTRACTORS
from nestvec.corpus.reading.records import Columns, Record, TextUnit, record_of, wanted_columns
from nestvec.engine.pictures.picture import Picture
from nestvec.errors import FormatError
from nestvec.system.extras import how_to_install
from nestvec.system.json_files import load_json
from nestvec.system.unicode import replace_lone_surrogates

PARQUET_ROWS: Final = 1024
# More than any is embedded of: what is larger is not read into memory to be refused.
MAX_PICTURE_BYTES: Final = 256 * 1024 * 1024
GZIP: Final = ".gz"
# Between two paragraphs: a blank line, or several.
BLANK_LINES: Final = re.compile(r"(?:[^\S\n]*\n){2,}")


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
