"""Rows as one matrix in numpy's format."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import orjson

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

IDS_ENDING: Final = ".ids.txt"
ROWS_ENDING: Final = ".rows.jsonl"
COPIED_ROWS: Final = 4096


class NpyWriter:
    """Writes one matrix `[N, W]`; ids in an `.ids.txt`, metadata in a `.meta.json` beside it.

    What else is kept of rows stands in a `.rows.jsonl`, an object a row.
    """

    def __init__(self, path: Path, layout: FileLayout) -> None:
        if layout.form is not OutputForm.DENSE:
            raise FormatError(f"an npy file holds no {layout.form} vectors; choose .parquet")
        if layout.store.with_text:
            raise FormatError("an npy file holds no texts; choose .parquet or .jsonl")
        self._layout = layout
        self._width = layout.store.width
        self._dtype = np.dtype(layout.store.dtype).newbyteorder("<")
        self._path = path
        self._file = open_truncated(path, layout.offsets.get("matrix", 0))
        self._ids = open_truncated(path.with_suffix(IDS_ENDING), layout.offsets.get("ids", 0))
        self._fields: IO[bytes] | None = None
        if layout.names:
            beside = path.with_suffix(ROWS_ENDING)
            self._fields = open_truncated(beside, layout.offsets.get("fields", 0))
        self._rows = layout.offsets.get("rows", 0)
        if not self._rows:
            self._write_header()

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Append rows; the header, whose length does not depend on N, is written again at the end."""
        self._rows += len(vectors)
        self._file.write(np.ascontiguousarray(vectors, self._dtype).tobytes())
        self._ids.writelines(str(row.id).replace("\n", " ").encode() + b"\n" for row in rows)
        if self._fields is not None:
            lines = ({"id": row.id, **self._layout.plain_fields(row)} for row in rows)
            self._fields.writelines(orjson.dumps(line) + b"\n" for line in lines)

    def sync(self) -> dict[str, int]:
        """Sync the files to disk, and return their sizes in bytes and the number of rows."""
        sizes = {"matrix": sync(self._file), "ids": sync(self._ids), "rows": self._rows}
        return sizes if self._fields is None else {**sizes, "fields": sync(self._fields)}

    def finish(self, kept: Kept | None = None) -> list[Path]:
        """Add what stays of an earlier matrix, and write the true number of rows into the header."""
        if kept is not None:
            self._add(kept)
        self._write_header()
        self.close()
        path = self._path
        files = [
            write_metadata(path.with_suffix(METADATA_ENDING), self._layout.store.metadata),
            path.with_suffix(IDS_ENDING),
        ]
        if self._fields is not None:
            files.append(path.with_suffix(ROWS_ENDING))
        return [*files, path]

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._ids.close()
        if self._fields is not None:
            self._fields.close()

    def _add(self, kept: Kept) -> None:
        """Append the rows that stay of an earlier matrix: a row's place means nothing."""
        assert self._fields is not None  # noqa: S101 - for mypy: what is added to has hashes
        matrix = np.load(kept.path, mmap_mode="r")
        stays = []
        with kept.path.with_suffix(ROWS_ENDING).open("rb") as file:
            for line in file:
                row = orjson.loads(line)
                stays.append(row["document"] not in kept.dropped)
                if stays[-1]:
                    self._fields.write(line)
                    self._ids.write(str(row["id"]).replace("\n", " ").encode() + b"\n")
        places = np.flatnonzero(stays)
        for start in range(0, len(places), COPIED_ROWS):
            part = matrix[places[start : start + COPIED_ROWS]]
            self._file.write(np.ascontiguousarray(part, self._dtype).tobytes())
        self._rows += len(places)

    def _write_header(self) -> None:
        """Write the header of the matrix as it is now."""
        # numpy pads headers to a multiple of 64 bytes with room for a longer shape, so the length stays.
        self._file.seek(0)
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._rows, self._width),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


class NpyBase:
    """The matrix of an earlier run.

    Raises:
        FormatError: It holds vectors of another space, or does not tell what they were made of.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        check_same(path, read_metadata(path), metadata)
        self._path = path

    def stored(self) -> Iterator[StoredRow]:
        """Yield every row."""
        try:
            with self._path.with_suffix(ROWS_ENDING).open("rb") as file:
                for line in file:
                    row: dict[str, Any] = orjson.loads(line)
                    yield StoredRow(row["document"], row["content_hash"], row["chunks"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise no_hashes(self._path) from error
