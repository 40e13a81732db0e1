"""One record of a file: which of its columns are read, and what they come to."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from nestvec.engine.pictures.picture import Picture
from nestvec.engine.text.preparation.record_template import RecordTemplate
from nestvec.errors import FormatError, InputError
from nestvec.system.unicode import replace_lone_surrogates

ALL_COLUMNS: Final = "all"
# What outputs call their own columns.
RESERVED_COLUMNS: Final = frozenset(
    (
        *("id", "document", "start", "end", "text", "embedding", "indices", "values"),
        *("chunk", "chunks", "content_hash"),
    )
)


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
    picture: Picture | None = None

    @property
    def texts(self) -> tuple["Record", ...]:
        """The records whose texts are read, in order: the members, or the record itself."""
        return self.members or (self,)

    @property
    def identity(self) -> str:
        """The text, or for a picture what is the same for equal files only, and is no text of any corpus."""
        if self.picture is None:
            return self.text
        return f"\0picture {hashlib.sha256(self.picture.data).hexdigest()}"


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
