"""Magnitude's files: SQLite databases whose table `magnitude` has a word and its values, as whole numbers, a row.

Source: the converter of pymagnitude (`pymagnitude/converter.py`), MIT licence: values are multiplied by 10 to the power
of `precision` in `magnitude_format`.
"""

import re
import sqlite3
import urllib.parse
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np

from nestvec.engine.types import FloatArray
from nestvec.errors import FormatError
from nestvec.model_store.word_tables.source_table import (
    SourceTable,
    TableChunk,
    check_dimensions,
    rows_a_chunk,
)

SIGNATURE: Final = b"SQLite format 3\0"
MAX_PRECISION: Final = 18
COLUMN: Final = re.compile(r"dim_(\d{1,5})")


def read_magnitude(path: Path) -> SourceTable:
    """Read a Magnitude file.

    Words that it lacks are not looked up as the library does, by the spelling of others.

    Raises:
        FormatError: It is another database, holds no words (ELMo), or is corrupt.
    """
    try:
        with closing(_open(path)) as database:
            settings = dict(database.execute("SELECT key, value FROM magnitude_format").fetchall())
            columns = [row[1] for row in database.execute("PRAGMA table_info(magnitude)")]
    except (sqlite3.Error, ValueError) as error:
        raise FormatError(f"{path}: not a Magnitude file ({error})") from error
    precision, dimensions = settings.get("precision"), settings.get("dim")
    if settings.get("elmo"):
        raise FormatError(
            f"{path}: holds an ELMo model, which is no table of words; take a table without 'elmo'"
        )
    names = {column for column in columns if COLUMN.fullmatch(column)}
    if not (
        isinstance(precision, int)
        and 0 <= precision <= MAX_PRECISION
        and isinstance(dimensions, int)
        and names == {f"dim_{n}" for n in range(dimensions)}
        and "key" in columns
    ):
        raise FormatError(
            f"{path}: not a Magnitude file: its tables 'magnitude' and 'magnitude_format' do not fit each other"
        )
    check_dimensions(dimensions, str(path))
    return SourceTable("Magnitude", dimensions, _chunks(path, dimensions, precision))


def _open(path: Path) -> sqlite3.Connection:
    """Open a database without writing to it; words are read as bytes."""
    place = urllib.parse.quote(str(path.resolve()))
    database = sqlite3.connect(f"file:{place}?mode=ro&immutable=1", uri=True)
    database.text_factory = bytes_or_text
    return database


def bytes_or_text(content: bytes) -> str:
    """Read a text of a database; what is no UTF-8 keeps its bytes as lone surrogates."""
    return content.decode("utf-8", "surrogateescape")


def _chunks(path: Path, dimensions: int, precision: int) -> Iterator[TableChunk]:
    columns = ", ".join(["key", *(f"dim_{n}" for n in range(dimensions))])
    number = 0
    try:
        with closing(_open(path)) as database:
            rows = database.execute(f"SELECT {columns} FROM magnitude ORDER BY rowid")  # noqa: S608 - checked names
            while part := rows.fetchmany(rows_a_chunk(dimensions)):
                yield _chunk(path, part, precision, number)
                number += len(part)
    except sqlite3.Error as error:
        raise FormatError(f"{path}: row {number + 1}: cannot be read ({error})") from error


def _chunk(path: Path, rows: list[tuple[Any, ...]], precision: int, number: int) -> TableChunk:
    """Turn rows of the database into words and floats."""
    words = [str(row[0] if row[0] is not None else "") for row in rows]
    try:
        values = np.array([row[1:] for row in rows], np.float64) / 10**precision
    except (TypeError, ValueError, OverflowError):
        values = np.full((1, 1), np.nan)
    with np.errstate(over="ignore"):
        vectors: FloatArray = values.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise FormatError(
            f"{path}: rows {number + 1} to {number + len(rows)}: a value is no number; write the file again"
        )
    return TableChunk([word.encode("utf-8", "surrogateescape") for word in words], vectors)
