"""Writes vectors to Parquet, npy or JSONL; under a temporary name until whole."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np
import orjson

from app.corpus.readers import Record, import_parquet
from app.engine.types import FloatArray
from app.errors import FormatError

Metadata = Mapping[str, str]


class Writer(Protocol):
    """Takes records and their vectors in order; `close` ends the file."""

    def write(self, records: Sequence[Record], vectors: FloatArray) -> None:
        """Append vectors (n, D) of n records."""

    def close(self) -> None:
        """End the file."""


class JsonlWriter:
    """One object a line: id, embedding, and the text where asked; metadata in a `.meta.json` beside it."""

    def __init__(self, path: Path, metadata: Metadata, *, with_text: bool) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._with_text = with_text
        self._beside = (path.with_suffix(".meta.json"), metadata)

    def write(self, records: Sequence[Record], vectors: FloatArray) -> None:
        """Append."""
        for record, vector in zip(records, vectors, strict=True):
            row: dict[str, Any] = {"id": record.id, "embedding": vector}
            if self._with_text:
                row["text"] = record.text
            self._file.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")

    def close(self) -> None:
        """End the file."""
        self._file.close()
        _write_beside(*self._beside)


class NpyWriter:
    """One (N, D) float32 matrix; ids in a `.ids.txt` and metadata in a `.meta.json` beside it."""

    def __init__(self, path: Path, metadata: Metadata, *, with_text: bool) -> None:
        if with_text:
            raise FormatError("an npy file holds no texts; choose .parquet or .jsonl")
        self._path = path
        self._file: IO[bytes] = path.open("wb")
        self._ids: IO[str] = path.with_suffix(".ids.txt").open("w", encoding="utf-8")
        self._beside = (path.with_suffix(".meta.json"), metadata)
        self._rows = 0
        self._width = 0

    def write(self, records: Sequence[Record], vectors: FloatArray) -> None:
        """Append; the header, whose length does not depend on N, is written again at the end."""
        if not self._rows:
            self._width = vectors.shape[1]
            self._header()
        self._rows += len(vectors)
        self._file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
        self._ids.writelines(record.id.replace("\n", " ") + "\n" for record in records)

    def close(self) -> None:
        """Write the true number of rows into the header."""
        self._header()
        self._file.close()
        self._ids.close()
        _write_beside(*self._beside)

    def _header(self) -> None:
        # numpy pads headers to a multiple of 64 bytes with room for a longer shape, so the length stays.
        self._file.seek(0)
        shape = (self._rows, self._width)
        described = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, described)


class ParquetWriter:
    """Columns id, embedding (fixed-size list of float32) and, where asked, text; metadata in the schema."""

    def __init__(self, path: Path, metadata: Metadata, *, with_text: bool) -> None:
        self._parquet = import_parquet()
        self._path = path
        self._metadata = metadata
        self._with_text = with_text
        self._writer: Any = None

    def write(self, records: Sequence[Record], vectors: FloatArray) -> None:
        """Append a row group."""
        import pyarrow as pa

        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float32())
        columns = {
            "id": pa.array([r.id for r in records], pa.string()),
            "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        }
        if self._with_text:
            columns["text"] = pa.array([r.text for r in records], pa.string())
        table = pa.table(columns).replace_schema_metadata(dict(self._metadata))
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        """End the file; one without rows still has its columns."""
        if self._writer is None:
            self.write([], np.empty((0, 1), np.float32))
        self._writer.close()


WRITERS: Final[Mapping[str, Callable[..., Writer]]] = {
    ".jsonl": JsonlWriter,
    ".npy": NpyWriter,
    ".parquet": ParquetWriter,
}


def open_writer(path: Path, metadata: Metadata, *, with_text: bool) -> Writer:
    """Open a file for vectors; its ending says the format.

    Raises:
        FormatError: An unknown ending, or texts asked for where they cannot be kept.
        OSError: It cannot be written.
    """
    check_ending(path)
    return WRITERS[path.suffix.lower()](path, metadata, with_text=with_text)


def check_ending(path: Path) -> None:
    """Refuse an output that we cannot write, before any work.

    Raises:
        FormatError: An unknown ending.
    """
    if path.suffix.lower() not in WRITERS:
        raise FormatError(f"{path}: unknown ending; known: {', '.join(WRITERS)}")


def _write_beside(path: Path, metadata: Metadata) -> None:
    path.write_text(json.dumps(dict(metadata), indent=1), "utf-8")
