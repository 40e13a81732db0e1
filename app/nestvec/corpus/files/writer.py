"""What writers to files are given and promise."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from nestvec.corpus.embedders import OutputForm
from nestvec.corpus.store_writer import ColumnType, Row, StoredRow, StoreLayout, Vectors
from nestvec.errors import FormatError

# Of a file that another run is to add to, what must be the same.
SAME: Sequence[str] = (
    "nestvec.space",
    "nestvec.dimensions",
    "nestvec.output_dtype",
    "nestvec.output",
)
METADATA_ENDING = ".meta.json"


@dataclass(frozen=True, slots=True)
class FileLayout:
    """How rows stand in a file.

    Attributes:
        store: What all rows have in common.
        form: What is made of a text.
        has_places: Whether rows tell their document, and where they start and end in it.
        has_hashes: Whether rows tell what a later run needs to add to the file.
        offsets: What `Writer.sync` returned, to resume from there; empty for a new output.
    """

    store: StoreLayout
    form: OutputForm = OutputForm.DENSE
    has_places: bool = False
    has_hashes: bool = False
    offsets: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of a row's fields besides its id and its vector, in order."""
        names = ["document", "start", "end"] if self.has_places else []
        if self.has_hashes and not self.has_places:
            names.append("document")
        if self.store.with_text:
            names.append("text")
        names += self.store.columns
        if self.has_hashes:
            names += ["chunks", "content_hash"]
        return names

    def fields(self, row: Row) -> dict[str, Any]:
        """Return those fields of a row."""
        own = {
            "document": row.document,
            "start": row.start,
            "end": row.end,
            "text": row.text,
            "chunks": row.chunks,
            "content_hash": row.content_hash,
        }
        kept = self.store.columns
        return {name: row.columns[name] if name in kept else own[name] for name in self.names}

    def plain_fields(self, row: Row) -> dict[str, Any]:
        """Return the same for JSON, in which what is JSON text elsewhere stands as it is."""
        fields = self.fields(row)
        for name, kind in self.store.columns.items():
            if kind is ColumnType.JSON and fields[name] is not None:
                fields[name] = json.loads(fields[name])
        return fields


class EarlierOutput(Protocol):
    """An output of an earlier run, which is added to."""

    def stored(self) -> Iterator[StoredRow]:
        """Yield every row."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What of an earlier output stays.

    Attributes:
        path: Its file.
        dropped: The documents whose rows do not stay: they were embedded again, or are to go.
    """

    path: Path
    dropped: Collection[str]


class Writer(Protocol):
    """Takes rows and their vectors in order."""

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Append the vectors of N rows."""

    def sync(self) -> dict[str, int]:
        """Sync all that was written to disk, and return the size of each file, from which a later run resumes."""

    def finish(self, kept: Kept | None = None) -> list[Path]:
        """Complete the output, with what stays of an earlier one; return its files, the one named after it last."""

    def close(self) -> None:
        """Close the output as it is; no effect once it is finished."""


def write_metadata(path: Path, metadata: Mapping[str, str]) -> Path:
    """Write metadata as JSON, and return its path."""
    path.write_text(json.dumps(dict(metadata), indent=1), "utf-8")
    return path


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata beside an output.

    Raises:
        FormatError: There is none.
    """
    beside = path.with_suffix(METADATA_ENDING)
    try:
        return dict(json.loads(beside.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise FormatError(f"{path}: cannot be added to without its {beside.name}") from error


def check_same(path: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Refuse to add vectors to those of another space, size or dtype.

    Raises:
        FormatError: They differ.
    """
    for name in SAME:
        if found.get(name) != wanted.get(name):
            what = name.removeprefix("nestvec.")
            raise FormatError(
                f"{path}: holds vectors of {what} {found.get(name)}, these are of {wanted.get(name)}; "
                "choose another output, or replace it by leaving --append out"
            )


def no_hashes(path: Path) -> FormatError:
    """Return the error of an output that does not tell what it was made of."""
    return FormatError(
        f"{path}: does not tell which texts it holds; make it with --append from the first run on"
    )
