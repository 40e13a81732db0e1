"""Rows as JSON lines: an object a row, or as Elasticsearch's bulk requests take them."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import orjson
from typing_extensions import override

from nestvec.corpus.embedders import OutputForm
from nestvec.corpus.files.writer import (
    METADATA_ENDING,
    FileLayout,
    Kept,
    check_same,
    no_hashes,
    read_metadata,
    write_metadata,
)
from nestvec.corpus.store_writer import Row, StoredRow, Vectors
from nestvec.errors import FormatError
from nestvec.system.durable_files import open_truncated, sync

BULK_ENDING: Final = ".bulk.jsonl"


class JsonlWriter:
    """Writes an object a line: id, embedding, and what else is kept; metadata in a `.meta.json` beside it."""

    def __init__(self, path: Path, layout: FileLayout) -> None:
        self._path = path
        self._layout = layout
        self._file = open_truncated(path, layout.offsets.get("lines", 0))

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Append a line for each row."""
        write_lines(self._file, rows, vectors, self._layout)

    def sync(self) -> dict[str, int]:
        """Sync the lines to disk, and return their size in bytes."""
        return {"lines": sync(self._file)}

    def finish(self, kept: Kept | None = None) -> list[Path]:
        """Close the file, and write the metadata beside it."""
        self._file.close()
        if kept is not None:
            whole = self._path.with_suffix(".whole")
            with whole.open("wb") as file:
                for line, row in _lines(kept.path):
                    if row["document"] not in kept.dropped:
                        file.write(line)
                with self._path.open("rb") as new:
                    shutil.copyfileobj(new, file)
                sync(file)
            os.replace(whole, self._path)  # noqa: PTH105 - tests stop Path.replace, which publishes
        metadata = write_metadata(
            self._path.with_suffix(METADATA_ENDING), self._layout.store.metadata
        )
        return [metadata, self._path]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class BulkWriter(JsonlWriter):
    """Writes the lines of Elasticsearch's and OpenSearch's `_bulk`: an action, then a document."""

    @override
    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Append two lines for each row."""
        for row, line in zip(rows, json_rows(rows, vectors, self._layout), strict=True):
            self._file.write(orjson.dumps({"index": {"_id": str(row.id)}}) + b"\n")
            self._file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")


def write_lines(file: IO[bytes], rows: Sequence[Row], vectors: Vectors, layout: FileLayout) -> None:
    """Write N rows and their vectors as JSON, an object a line."""
    for line in json_rows(rows, vectors, layout):
        file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")


def json_rows(
    rows: Sequence[Row], vectors: Vectors, layout: FileLayout
) -> Iterator[dict[str, Any]]:
    """Yield N rows and their vectors as objects for orjson."""
    for row, vector in zip(rows, vectors, strict=True):
        embedding: Any = np.ascontiguousarray(vector)
        if layout.form is OutputForm.SPARSE:
            embedding = {
                "indices": vector[:, 0].astype(np.int32),
                "values": np.ascontiguousarray(vector[:, 1]),
            }
        yield {"id": row.id, "embedding": embedding, **layout.plain_fields(row)}


class JsonlBase:
    """JSON lines of an earlier run.

    Raises:
        FormatError: They hold vectors of another space, or do not tell what they were made of.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        check_same(path, read_metadata(path), metadata)
        self._path = path

    def stored(self) -> Iterator[StoredRow]:
        """Yield every row."""
        for _, row in _lines(self._path):
            yield StoredRow(row["document"], row["content_hash"], row["chunks"])


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield each line with what is in it.

    Raises:
        FormatError: A line is none of ours.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = orjson.loads(line)
            except ValueError as error:
                raise FormatError(f"{path}:{number}: not JSON") from error
            if not isinstance(row, dict) or not {"document", "content_hash", "chunks"} <= set(row):
                raise no_hashes(path)
            yield line, row
