"""Writes vectors to Parquet, Arrow, npy or JSONL, so that an interrupted output can be gone on with."""

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
from nestvec.system.durable_files import open_at, sync

Metadata = Mapping[str, str]
Vectors = NDArray[Any]  # (n, W) of the output's dtype


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """How to open an output.

    Attributes:
        width: W, numbers stored for a vector.
        dtype: Of those numbers, as numpy names it.
        with_text: Keep the texts beside the vectors.
        offsets: What `Writer.sync` gave, to go on from there.
    """

    width: int
    dtype: str = "float32"
    with_text: bool = False
    offsets: Mapping[str, int] = field(default_factory=dict)


class Writer(Protocol):
    """Takes records and their vectors in order."""

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """Append vectors (n, D) of n records."""

    def sync(self) -> dict[str, int]:
        """Put all that was written on disk; gives the size of each file, from which a later run goes on."""

    def finish(self) -> list[Path]:
        """Make the output whole and close it; gives its files, the one it is named after last."""

    def close(self) -> None:
        """Close it as it is; no effect once finished."""


class JsonlWriter:
    """One object a line: id, embedding, and the text where asked; metadata in a `.meta.json` beside it."""

    def __init__(self, path: Path, metadata: Metadata, options: WriterOptions) -> None:
        self._path = path
        self._file = open_at(path, options.offsets.get("lines", 0))
        self._with_text = options.with_text
        self._beside = (path.with_suffix(".meta.json"), metadata)

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """Append."""
        write_lines(self._file, records, vectors, with_text=self._with_text)

    def sync(self) -> dict[str, int]:
        """Put it on disk."""
        return {"lines": sync(self._file)}

    def finish(self) -> list[Path]:
        """End the file."""
        self._file.close()
        return [_write_beside(*self._beside), self._path]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class NpyWriter:
    """One (N, W) matrix; ids in a `.ids.txt` and metadata in a `.meta.json` beside it."""

    def __init__(self, path: Path, metadata: Metadata, options: WriterOptions) -> None:
        if options.with_text:
            raise FormatError("an npy file holds no texts; choose .parquet or .jsonl")
        self._width = options.width
        self._dtype = np.dtype(options.dtype).newbyteorder("<")
        self._file = open_at(path, options.offsets.get("matrix", 0))
        self._path = path
        self._ids_path = path.with_suffix(".ids.txt")
        self._ids = open_at(self._ids_path, options.offsets.get("ids", 0))
        self._beside = (path.with_suffix(".meta.json"), metadata)
        self._rows = options.offsets.get("rows", 0)
        if not self._rows:
            self._header()

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """Append; the header, whose length does not depend on N, is written again at the end."""
        self._rows += len(vectors)
        self._file.write(np.ascontiguousarray(vectors, self._dtype).tobytes())
        lines = (record.id.replace("\n", " ") + "\n" for record in records)
        self._ids.writelines(line.encode() for line in lines)

    def sync(self) -> dict[str, int]:
        """Put both files on disk."""
        return {"matrix": sync(self._file), "ids": sync(self._ids), "rows": self._rows}

    def finish(self) -> list[Path]:
        """Write the true number of rows into the header."""
        self._header()
        self.close()
        return [_write_beside(*self._beside), self._ids_path, self._path]

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._ids.close()

    def _header(self) -> None:
        # numpy pads headers to a multiple of 64 bytes with room for a longer shape, so the length stays.
        self._file.seek(0)
        shape = (self._rows, self._width)
        described = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(self._file, described)


class TableWriter:
    """Columns id, embedding (fixed-size list) and, where asked, text; metadata in the schema. Parquet or Arrow IPC.

    Neither can be gone on with, so chunks are kept as Arrow streams one behind the other until the end.
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
        self._file = open_at(self._streams, options.offsets.get("streams", 0))

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """Append a stream of one batch."""
        import pyarrow as pa

        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), self._dtype)
        columns = {
            "id": pa.array([r.id for r in records], pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
            "text": pa.array([r.text for r in records], pa.string()),
        }
        chosen = [columns[name] for name in self._schema.names]
        with pa.ipc.new_stream(self._file, self._schema) as stream:
            stream.write_batch(pa.record_batch(chosen, schema=self._schema))

    def sync(self) -> dict[str, int]:
        """Put the streams on disk."""
        return {"streams": sync(self._file)}

    def finish(self) -> list[Path]:
        """Write the file, a row group or record batch a chunk."""
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
    """Open a file for vectors; its ending says the format.

    Raises:
        FormatError: An unknown ending, or texts asked for where they cannot be kept.
        OSError: It cannot be written.
    """
    check_ending(path)
    return WRITERS[path.suffix.lower()](path, metadata, options)


def write_lines(
    file: IO[bytes], records: Sequence[Record], vectors: Vectors, *, with_text: bool
) -> None:
    """Write vectors (n, D) of n records as JSON, an object a line."""
    for record, vector in zip(records, np.ascontiguousarray(vectors), strict=True):
        row: dict[str, Any] = {"id": record.id, "embedding": vector}
        if with_text:
            row["text"] = record.text
        file.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")


def check_ending(path: Path) -> None:
    """Refuse an output that we cannot write, before any work.

    Raises:
        FormatError: An unknown ending.
    """
    if path.suffix.lower() not in WRITERS:
        raise FormatError(f"{path}: unknown ending; known: {', '.join(WRITERS)}")


def _write_beside(path: Path, metadata: Metadata) -> Path:
    path.write_text(json.dumps(dict(metadata), indent=1), "utf-8")
    return path
