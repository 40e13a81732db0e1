"""Writes vectors to Parquet, Arrow, npy or JSONL, so that an interrupted output can be resumed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from nestvec.corpus.readers import Record, import_parquet
from nestvec.errors import FormatError
from nestvec.system.durable_files import open_truncated, sync

Metadata = Mapping[str, str]
# `[N, W]` of the output's dtype.
Vectors = NDArray[Any]


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """How to open an output.

    Attributes:
        width: W, the number of values stored for a vector.
        dtype: The dtype of those values, by numpy's name.
        with_text: Whether the texts are kept beside the vectors.
        offsets: What `Writer.sync` returned, to resume from there; empty for a new output.
    """

    width: int
    dtype: str = "float32"
    with_text: bool = False
    offsets: Mapping[str, int] = field(default_factory=dict)


class Writer(Protocol):
    """Takes records and their vectors in order."""

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """Append the vectors `[N, W]` of N records."""

    def sync(self) -> dict[str, int]:
        """Sync all that was written to disk, and return the size of each file, from which a later run resumes."""

    def finish(self) -> list[Path]:
        """Complete the output and close it; return its files, the one that it is named after last."""

    def close(self) -> None:
        """Close the output as it is; no effect once it is finished."""


class JsonlWriter:
    """Writes an object a line: id, embedding, and the text if kept; metadata in a `.meta.json` beside it."""

    def __init__(self, path: Path, metadata: Metadata, options: WriterOptions) -> None:
        self._path = path
        self._file = open_truncated(path, options.offsets.get("lines", 0))
        self._with_text = options.with_text
        self._metadata_path, self._metadata = path.with_suffix(".meta.json"), metadata

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """Append a line for each record."""
        write_lines(self._file, records, vectors, with_text=self._with_text)

    def sync(self) -> dict[str, int]:
        """Sync the lines to disk, and return their size in bytes."""
        return {"lines": sync(self._file)}

    def finish(self) -> list[Path]:
        """Close the file, and write the metadata beside it."""
        self._file.close()
        return [_write_metadata(self._metadata_path, self._metadata), self._path]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class NpyWriter:
    """Writes one matrix `[N, W]`; ids in an `.ids.txt` and metadata in a `.meta.json` beside it."""

    def __init__(self, path: Path, metadata: Metadata, options: WriterOptions) -> None:
        if options.with_text:
            raise FormatError("an npy file holds no texts; choose .parquet or .jsonl")
        self._width = options.width
        self._dtype = np.dtype(options.dtype).newbyteorder("<")
        self._file = open_truncated(path, options.offsets.get("matrix", 0))
        self._path = path
        self._ids_path = path.with_suffix(".ids.txt")
        self._ids = open_truncated(self._ids_path, options.offsets.get("ids", 0))
        self._metadata_path, self._metadata = path.with_suffix(".meta.json"), metadata
        self._rows = options.offsets.get("rows", 0)
        if not self._rows:
            self._write_header()

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """Append rows; the header, whose length does not depend on N, is written again at the end."""
        self._rows += len(vectors)
        self._file.write(np.ascontiguousarray(vectors, self._dtype).tobytes())
        lines = (record.id.replace("\n", " ") + "\n" for record in records)
        self._ids.writelines(line.encode() for line in lines)

    def sync(self) -> dict[str, int]:
        """Sync both files to disk, and return their sizes in bytes and the number of rows."""
        return {"matrix": sync(self._file), "ids": sync(self._ids), "rows": self._rows}

    def finish(self) -> list[Path]:
        """Write the true number of rows into the header."""
        self._write_header()
        self.close()
        return [_write_metadata(self._metadata_path, self._metadata), self._ids_path, self._path]

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._ids.close()

    def _write_header(self) -> None:
        """Write the header of the matrix as it is now."""
        # numpy pads headers to a multiple of 64 bytes with room for a longer shape, so the length stays.
        self._file.seek(0)
        shape = (self._rows, self._width)
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(self._file, header)


class TableWriter:
    """Writes the columns id, embedding (fixed-size list) and, if kept, text as Parquet or Arrow IPC.

    The metadata is in the schema. Neither format can be appended to, so chunks are kept as Arrow streams one behind the
    other until the end.
    """

    def __init__(self, path: Path, metadata: Metadata, options: WriterOptions) -> None:
        self._parquet = import_parquet()
        import pyarrow as pa

        self._dtype = pa.from_numpy_dtype(np.dtype(options.dtype))
        columns = [("id", pa.string()), ("embedding", pa.list_(self._dtype, options.width))]
        if options.with_text:
            columns.append(("text", pa.string()))
        self._schema = pa.schema(columns, metadata=dict(metadata))
        self._path = path
        self._streams = path.with_suffix(".arrows")
        self._file = open_truncated(self._streams, options.offsets.get("streams", 0))

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """Append a stream of one record batch."""
        import pyarrow as pa

        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), self._dtype)
        values = {
            "id": pa.array([record.id for record in records], pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
            "text": pa.array([record.text for record in records], pa.string()),
        }
        columns = [values[name] for name in self._schema.names]
        with pa.ipc.new_stream(self._file, self._schema) as stream:
            stream.write_batch(pa.record_batch(columns, schema=self._schema))

    def sync(self) -> dict[str, int]:
        """Sync the streams to disk, and return their size in bytes."""
        return {"streams": sync(self._file)}

    def finish(self) -> list[Path]:
        """Write the file, with a row group or a record batch for each chunk."""
        import pyarrow as pa

        self._file.close()
        size = self._streams.stat().st_size
        is_parquet = self._path.suffix.lower() == ".parquet"
        open_file = self._parquet.ParquetWriter if is_parquet else pa.ipc.new_file
        with (
            self._streams.open("rb") as streams,
            open_file(self._path, self._schema) as writer,
        ):
            while streams.tell() < size:
                with pa.ipc.open_stream(streams) as stream:
                    for batch in stream:
                        writer.write_batch(batch)
        return [self._path]

    def close(self) -> None:
        """Close the streams."""
        self._file.close()


WRITERS: Final[Mapping[str, Callable[..., Writer]]] = {
    ".jsonl": JsonlWriter,
    ".npy": NpyWriter,
    ".parquet": TableWriter,
    ".arrow": TableWriter,
}


def open_writer(path: Path, metadata: Metadata, options: WriterOptions) -> Writer:
    """Open a file for vectors, in the format of its ending.

    Raises:
        FormatError: The ending is unknown, or the format cannot keep texts.
        OSError: The file cannot be written.
    """
    check_ending(path)
    return WRITERS[path.suffix.lower()](path, metadata, options)


def write_lines(
    file: IO[bytes], records: Sequence[Record], vectors: Vectors, *, with_text: bool
) -> None:
    """Write the vectors `[N, W]` of N records as JSON, an object a line."""
    for record, vector in zip(records, np.ascontiguousarray(vectors), strict=True):
        row: dict[str, Any] = {"id": record.id, "embedding": vector}
        if with_text:
            row["text"] = record.text
        file.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")


def check_ending(path: Path) -> None:
    """Refuse an output of a format that cannot be written, before any work.

    Raises:
        FormatError: The ending is unknown.
    """
    if path.suffix.lower() not in WRITERS:
        raise FormatError(f"{path}: unknown ending; known: {', '.join(WRITERS)}")


def _write_metadata(path: Path, metadata: Metadata) -> Path:
    """Write metadata as JSON, and return its path."""
    path.write_text(json.dumps(dict(metadata), indent=1), "utf-8")
    return path
