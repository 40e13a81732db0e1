"""What a vector store's writer is given and what it promises: the one seam between the pipeline and every store."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# `[N, W]` of the output's dtype; a list of N arrays where a text has several: `[T, D]` for a vector each token,
# `[terms, 2]` for weights of terms, as (id, weight).
Vectors = NDArray[Any] | list[NDArray[Any]]
RowId = str | int


class IdKind(StrEnum):
    """What the ids of rows are made of."""

    NAME = "name"  # the record's own id, or its file's path and its number
    COLUMN = "column"  # a column of the record, which must be there
    UUID5 = "uuid5"  # a UUID of the name (RFC 9562, version 5)
    INT = "int"  # 63 bits of the name's SHA-256
    SHA256 = "sha256"  # of the text, so that equal texts are one row


class ColumnType(StrEnum):
    """What a kept column holds; every value may also be None."""

    STRING = "string"
    INT = "int64"
    FLOAT = "float64"
    BOOL = "bool"
    JSON = "json"  # anything else, written as JSON text


@dataclass(frozen=True, slots=True)
class Row:
    """One vector's text: a record, or a chunk of a document.

    Attributes:
        id: Unique in the output, and the same in every run.
        document: Name of the record or document that the text is of.
        start: Where the text begins in its document, in characters (Unicode code points).
        end: Where it ends, exclusive.
        text: The text that was embedded.
        chunk: Number of the chunk in its document, from 0.
        chunks: How many chunks the document has.
        content_hash: Of all that decides the document's rows: its text, its kept columns, the options. 32 hex digits.
        columns: The kept columns, in the order and of the types of `StoreLayout.columns`.
    """

    id: RowId
    document: str
    start: int
    end: int
    text: str
    chunk: int
    chunks: int
    content_hash: str
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredRow:
    """What a store tells of one of its rows.

    Attributes:
        document: As in `Row`.
        content_hash: As in `Row`.
        chunks: As in `Row`.
    """

    document: str
    content_hash: str
    chunks: int


@dataclass(frozen=True, slots=True)
class StoreLayout:
    """What all rows of an output have in common.

    Attributes:
        metadata: What `nestvec embed` notes of an output: nestvec.model, nestvec.space, nestvec.dimensions,
            nestvec.output_dtype and more. Vectors of equal nestvec.space, dimensions and output_dtype may be compared.
        width: W, the number of values stored for a vector.
        dtype: The dtype of those values, by numpy's name.
        id_kind: What ids are made of; they are integers for `IdKind.INT`, else text.
        columns: Names and types of the kept columns.
        with_text: Whether texts are kept.
    """

    metadata: Mapping[str, str]
    width: int
    dtype: str = "float32"
    id_kind: IdKind = IdKind.NAME
    columns: Mapping[str, ColumnType] = field(default_factory=dict)
    with_text: bool = False


class StoreWriter(Protocol):
    """Keeps rows and their vectors in a store, row by row, so that a later run goes on from what is there.

    All methods are called from one thread at a time, and may take seconds.
    """

    def stored(self) -> Iterator[StoredRow]:
        """Yield every row that is in the store, in any order; asked once, before anything is written."""

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Put the vectors `[N, W]` of N rows into the store; a row of the same id is replaced.

        The rows of a document come in one call. An interruption may leave some of them: `stored` then yields fewer than
        their `chunks`, and they are written again.
        """

    def commit(self) -> None:
        """Make durable what was written: once this returns, a kill -9 does not lose it."""

    def remove(self, documents: Mapping[str, str]) -> None:
        """Remove rows of these documents, but for those of the content hash given; "" keeps none."""

    def finish(self) -> None:
        """Do what is due once all rows are there, as building an index."""

    def close(self) -> None:
        """Close the store, after `finish` or instead of it; what was committed stays."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A row that a search found.

    Attributes:
        score: Cosine similarity, or the dot product where the store computes that; of bits, the share that agrees.
        id: The row's id.
        document: Name of the document that its text is of.
        text: The text, "" where texts are not kept.
    """

    score: float
    id: RowId
    document: str
    text: str


class StoreReader(Protocol):
    """A store that is open for questions; it is called from one thread at a time."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What was noted of the vectors: `StoreLayout.metadata`."""

    def search(self, vector: NDArray[Any], limit: int) -> list[Hit]:
        """Return the rows nearest to a vector `[W]` of the store's dtype, the best first."""

    def stored(self) -> Iterator[StoredRow]:
        """Yield every row, in any order."""

    def close(self) -> None:
        """Close the store."""


@dataclass(frozen=True, slots=True)
class StoreKind:
    """A kind of store.

    Attributes:
        name: What people call it.
        check: Refuses, before any work, an address that cannot be and a missing package (`FormatError`).
        open: Opens the store at an address, or makes it. Raises `FormatError` where it holds vectors of another
            space, size or dtype, or rows that nestvec did not write, and `ArtefactError` where it cannot be reached or
            written.
        read: Opens a store that is there for questions; raises as `open` does, and `FormatError` where there is none.
        id_kind: The ids that it takes where the user names none.
    """

    name: str
    check: Callable[[str], None]
    open: Callable[[str, StoreLayout], StoreWriter]
    read: Callable[[str], StoreReader]
    id_kind: IdKind = IdKind.NAME


def joined_vectors(parts: Sequence[Vectors]) -> Vectors:
    """The vectors of several calls as those of one."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], list):
        return [vector for part in parts for vector in part]
    return np.concatenate(parts)
