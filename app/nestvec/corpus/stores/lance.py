"""LanceDB, a folder of tables: `lancedb://folder/table`. Search is exact until an index is made (docs/stores.md)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.store_writer import Hit, IdKind, Row, StoredRow, StoreLayout, Vectors
from nestvec.corpus.stores.common import (
    BIT_DTYPES,
    OWN_COLUMNS,
    check_columns,
    check_layout,
    check_same,
    distinct,
    output_dtype,
    parse_place,
    payload,
    require,
)
from nestvec.errors import FormatError

# LanceDB finds no vectors of int8 in a table, and of bits only as unsigned bytes.
DTYPES: Final = ("float32", "float16", "ubinary")
# How many documents a deletion names: each is a term of its condition.
DELETED_DOCUMENTS: Final = 50
READ_ROWS: Final = 8192


class LanceTable:
    """A table: id, vector (fixed-size list), document, start, end, chunk, chunks, content_hash, text, kept columns.

    Rows are gathered until `commit`, since each write makes a version of the table.

    Args:
        table: The open table.
        layout: How rows are written; None where it is only read.
    """

    def __init__(self, table: Any, layout: StoreLayout | None) -> None:  # noqa: ANN401 - LanceDB has no stubs here
        self._table = table
        self._layout = layout
        self._rows: list[Row] = []
        self._vectors: list[NDArray[Any]] = []

    @property
    def metadata(self) -> Mapping[str, str]:
        """What was noted in the table's schema."""
        return _schema_metadata(self._table)

    def stored(self) -> Iterator[StoredRow]:
        """Yield every row."""
        query = self._table.search().select(["document", "content_hash", "chunks"])
        for batch in query.to_batches(READ_ROWS):
            for row in batch.to_pylist():
                yield StoredRow(row["document"], row["content_hash"], row["chunks"])

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Gather rows for the next commit."""
        self._rows += rows
        self._vectors += list(vectors)

    def commit(self) -> None:
        """Merge the gathered rows into the table, by id."""
        if not self._rows or self._layout is None:
            return
        rows, vectors = distinct(self._rows, self._vectors)
        merge = self._table.merge_insert("id").when_matched_update_all()
        data = _arrow_table(self._table.schema, rows, vectors, self._layout)
        merge.when_not_matched_insert_all().execute(data)
        self._rows, self._vectors = [], []

    def remove(self, documents: Mapping[str, str]) -> None:
        """Delete the old rows of documents."""
        names = sorted(documents)
        for first in range(0, len(names), DELETED_DOCUMENTS):
            terms = [
                f"(document = {_literal(name)} AND content_hash <> {_literal(documents[name])})"
                for name in names[first : first + DELETED_DOCUMENTS]
            ]
            self._table.delete(" OR ".join(terms))

    def finish(self) -> None:
        """Join the small files of many commits."""
        self._table.optimize()

    def close(self) -> None:
        """Forget what was not committed."""
        self._rows, self._vectors = [], []

    def search(self, vector: NDArray[Any], limit: int) -> list[Hit]:
        """Search by cosine similarity, or by Hamming distance where the vectors are bits."""
        is_bits = output_dtype(self.metadata) in BIT_DTYPES
        has_text = "text" in self._table.schema.names
        columns = ["id", "document", *(["text"] if has_text else []), "_distance"]
        query = self._table.search(vector, vector_column_name="vector")
        query = query.distance_type("hamming" if is_bits else "cosine").select(columns)
        bits = 8 * len(vector) if is_bits else 1
        return [
            Hit(1 - row["_distance"] / bits, row["id"], row["document"], row.get("text") or "")
            for row in query.limit(limit).to_list()
        ]


def check(address: str) -> None:
    """Refuse an address that is none, or a missing package."""
    parse_place(address)
    require("lancedb", "lancedb")


def open_for_writing(address: str, layout: StoreLayout) -> LanceTable:
    """Open a table, or make it."""
    check_layout(address, layout, dtypes=DTYPES)
    place = parse_place(address)
    database = _connect(place.folder)
    schema = _schema(layout)
    table = _find(database, place.name)
    if table is None:
        return LanceTable(database.create_table(place.name, schema=schema), layout)
    check_same(address, _schema_metadata(table), layout)
    check_columns(address, table.schema.names, schema.names)
    return LanceTable(table, layout)


def open_for_reading(address: str) -> LanceTable:
    """Open a table to search it."""
    place = parse_place(address)
    table = None
    if place.folder is not None and place.folder.is_dir():
        table = _find(_connect(place.folder), place.name)
    if table is None:
        raise FormatError(f"{address}: no such table")
    return LanceTable(table, None)


def _connect(folder: Path | None) -> Any:  # noqa: ANN401 - LanceDB has no stubs here
    return require("lancedb", "lancedb").connect(str(folder))


def _find(database: Any, name: str) -> Any:  # noqa: ANN401 - LanceDB has no stubs here
    """Open a table; None where there is none: LanceDB tells that by a ValueError."""
    try:
        return database.open_table(name)
    except (ValueError, FileNotFoundError):
        return None


def _schema_metadata(table: Any) -> dict[str, str]:  # noqa: ANN401 - LanceDB has no stubs here
    metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items()}


def _schema(layout: StoreLayout) -> Any:  # noqa: ANN401 - nor has pyarrow
    """Return the Arrow schema of a table."""
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "json": pa.string(),
    }
    own = {**OWN_COLUMNS, **({"text": "string"} if layout.with_text else {})}
    fields = [pa.field("id", pa.int64() if layout.id_kind is IdKind.INT else pa.string())]
    fields += [pa.field(name, types[kind]) for name, kind in own.items()]
    fields += [pa.field(name, types[kind.value]) for name, kind in layout.columns.items()]
    values = pa.from_numpy_dtype(np.dtype(layout.dtype))
    fields.append(pa.field("vector", pa.list_(values, layout.width)))
    return pa.schema(fields, metadata=dict(layout.metadata))


def _arrow_table(
    schema: Any,  # noqa: ANN401 - pyarrow has no stubs
    rows: Sequence[Row],
    vectors: Sequence[NDArray[Any]],
    layout: StoreLayout,
) -> Any:  # noqa: ANN401 - pyarrow has no stubs
    """Return rows as an Arrow table."""
    import pyarrow as pa

    values = [payload(row, layout) for row in rows]
    flat = pa.array(np.concatenate(vectors).astype(layout.dtype, copy=False))
    columns = [
        pa.FixedSizeListArray.from_arrays(flat, layout.width)
        if field.name == "vector"
        else pa.array([row.id for row in rows], field.type)
        if field.name == "id"
        else pa.array([value[field.name] for value in values], field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _literal(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"
