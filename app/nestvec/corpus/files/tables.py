"""Rows as Parquet or Arrow IPC."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from nestvec.corpus.embedders import OutputForm
from nestvec.corpus.files.writer import FileLayout, Kept, check_same, no_hashes
from nestvec.corpus.reading.readers import import_parquet
from nestvec.corpus.store_writer import ColumnType, IdKind, Row, StoredRow, Vectors
from nestvec.errors import FormatError
from nestvec.system.durable_files import open_truncated, sync

# Rows of a row group, or of a record batch of Arrow.
GROUP_ROWS: Final = 4096
OWN_TYPES: Final = {"start": "int64", "end": "int64", "chunks": "int64"}
HASHES: Final = ("document", "content_hash", "chunks")


class TableWriter:
    """Writes the columns id, embedding (fixed-size list) and what else is kept as Parquet or Arrow IPC.

    The metadata is in the schema. Neither format can be appended to, so batches are kept as Arrow streams one behind
    the other until the end. Multi-vector embeddings are lists of fixed-size lists; of sparse ones the columns are
    `indices` and `values`, two lists.
    """

    def __init__(self, path: Path, layout: FileLayout) -> None:
        self._parquet = import_parquet()
        self._layout = layout
        self._schema = table_schema(layout)
        self._path = path
        self._streams = path.with_suffix(".arrows")
        self._file = open_truncated(self._streams, layout.offsets.get("streams", 0))

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Append a stream of one record batch."""
        import pyarrow as pa

        values = vector_columns(vectors, self._schema, self._layout)
        is_int = self._layout.store.id_kind is IdKind.INT
        values["id"] = [row.id if is_int else str(row.id) for row in rows]
        fields = [self._layout.fields(row) for row in rows]
        for name in self._layout.names:
            values[name] = [row[name] for row in fields]
        columns = [
            value if isinstance(value, pa.Array) else pa.array(value, self._schema.field(name).type)
            for name in self._schema.names
            for value in (values[name],)
        ]
        with pa.ipc.new_stream(self._file, self._schema) as stream:
            stream.write_batch(pa.record_batch(columns, schema=self._schema))

    def sync(self) -> dict[str, int]:
        """Sync the streams to disk, and return their size in bytes."""
        return {"streams": sync(self._file)}

    def finish(self, kept: Kept | None = None) -> list[Path]:
        """Write the file, in row groups or record batches of some thousand rows."""
        import pyarrow as pa

        self._file.close()
        size = self._streams.stat().st_size
        is_parquet = self._path.suffix.lower() == ".parquet"
        open_file = self._parquet.ParquetWriter if is_parquet else pa.ipc.new_file
        with self._streams.open("rb") as streams, open_file(self._path, self._schema) as writer:
            if kept is not None:
                for group in _groups(self._staying(kept)):
                    writer.write_table(group)
            for group in _groups(_stream_batches(streams, size)):
                writer.write_table(group)
        return [self._path]

    def close(self) -> None:
        """Close the streams."""
        self._file.close()

    def _staying(self, kept: Kept) -> Iterator[Any]:
        """Yield the rows that stay of an earlier file, as record batches.

        Raises:
            FormatError: Its columns are others.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        for batch in _batches(kept.path, None):
            if batch.schema.remove_metadata() != self._schema.remove_metadata():
                raise FormatError(
                    f"{kept.path}: its columns are {', '.join(batch.schema.names)} and not of the same types as "
                    f"{', '.join(self._schema.names)}; keep the same columns, or choose another output"
                )
            dropped = pa.array(sorted(kept.dropped), pa.string())
            stays = pc.invert(pc.is_in(batch.column("document"), value_set=dropped))
            yield pa.record_batch(batch.filter(stays).columns, schema=self._schema)


class TableBase:
    """A Parquet or Arrow file of an earlier run.

    Raises:
        FormatError: It holds vectors of another space, or does not tell what they were made of.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        import_parquet()
        self._path = path
        schema = _read_schema(path)
        found = {
            k.decode(): v.decode("utf-8", "replace") for k, v in (schema.metadata or {}).items()
        }
        check_same(path, found, metadata)
        if not set(HASHES) <= set(schema.names):
            raise no_hashes(path)

    def stored(self) -> Iterator[StoredRow]:
        """Yield every row."""
        for batch in _batches(self._path, HASHES):
            columns = (batch.column(name).to_pylist() for name in HASHES)
            for document, content_hash, chunks in zip(*columns, strict=True):
                yield StoredRow(document, content_hash, chunks)


def table_schema(layout: FileLayout) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return the schema of an output."""
    import pyarrow as pa

    store = layout.store
    dtype = pa.from_numpy_dtype(np.dtype(store.dtype))
    columns = [("id", pa.int64() if store.id_kind is IdKind.INT else pa.string())]
    if layout.form is OutputForm.SPARSE:
        columns += [("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))]
    elif layout.form is OutputForm.MULTI_VECTOR:
        columns.append(("embedding", pa.list_(pa.list_(dtype, store.width))))
    else:
        columns.append(("embedding", pa.list_(dtype, store.width)))
    types = {
        ColumnType.INT: pa.int64(),
        ColumnType.FLOAT: pa.float64(),
        ColumnType.BOOL: pa.bool_(),
    }
    for name in layout.names:
        kept = store.columns.get(name)
        own = pa.int64() if name in OWN_TYPES else pa.string()
        columns.append((name, own if kept is None else types.get(kept, pa.string())))
    return pa.schema(columns, metadata=dict(store.metadata))


def vector_columns(vectors: Vectors, schema: Any, layout: FileLayout) -> dict[str, Any]:  # noqa: ANN401 - pyarrow has no types
    """Return the columns that hold the vectors."""
    import pyarrow as pa

    if layout.form is OutputForm.SPARSE:
        return {
            "indices": [vector[:, 0].astype(np.int32) for vector in vectors],
            "values": [vector[:, 1] for vector in vectors],
        }
    offsets = np.cumsum([0, *map(len, vectors)]) if isinstance(vectors, list) else None
    matrix = np.concatenate(vectors) if isinstance(vectors, list) else vectors
    kind = schema.field("embedding").type
    if offsets is not None:
        kind = kind.value_type
    flat = pa.array(np.ascontiguousarray(matrix).reshape(-1), kind.value_type)
    array = pa.FixedSizeListArray.from_arrays(flat, layout.store.width)
    if offsets is not None:
        array = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), array)
    return {"embedding": array}


def _stream_batches(streams: Any, size: int) -> Iterator[Any]:  # noqa: ANN401 - pyarrow has no types
    """Yield the record batches of Arrow streams that stand one behind the other."""
    import pyarrow as pa

    while streams.tell() < size:
        with pa.ipc.open_stream(streams) as stream:
            yield from stream


def _groups(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield tables of `GROUP_ROWS` rows or a few more, the last one of fewer."""
    import pyarrow as pa

    waiting: list[Any] = []
    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= GROUP_ROWS:
            yield pa.Table.from_batches(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()


def _read_schema(path: Path) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return the schema of a file.

    Raises:
        FormatError: It is none that can be read.
    """
    import pyarrow as pa

    try:
        if path.suffix.lower() == ".parquet":
            return import_parquet().read_schema(path)
        with pa.ipc.open_file(path) as file:
            return file.schema
    except (pa.ArrowInvalid, OSError) as error:
        raise FormatError(f"{path}: cannot be added to: it is no file of its ending") from error


def _batches(path: Path, names: Sequence[str] | None) -> Iterator[Any]:
    """Yield a file's record batches, of some columns or of all."""
    import pyarrow as pa

    if path.suffix.lower() == ".parquet":
        file = import_parquet().ParquetFile(path)
        yield from file.iter_batches(batch_size=GROUP_ROWS, columns=names and list(names))
        return
    with pa.ipc.open_file(path) as file:
        for index in range(file.num_record_batches):
            batch = file.get_batch(index)
            yield batch if names is None else batch.select(list(names))
