"""An index file (.faiss, .usearch, .hnsw) and, beside it, what such libraries do not keep: ids, texts, columns.

The rows lie in an SQLite database, `NAME.rows.db`, under the 64-bit keys of the index. While a run lasts, its vectors
lie there too, so that a commit costs what was written since the last and not the whole index; at the end they go into
the index, which is replaced atomically. Killed in between, the next run puts the same vectors in again.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.store_writer import Hit, IdKind, Row, StoredRow, StoreLayout, Vectors
from nestvec.corpus.stores.common import check_same
from nestvec.errors import ArtefactError, FormatError
from nestvec.system.durable_files import sync_folder
from nestvec.system.file_locks import try_lock
from nestvec.system.sqlite import open_database

SCHEMA: Final = (
    # A key is never given twice, so that an index which lags behind cannot take one row for another.
    "create table if not exists rows (key integer primary key autoincrement, id unique not null, "
    'document text not null, start integer, "end" integer, chunk integer, chunks integer not null, '
    "content_hash text not null, text text, columns text)",
    "create index if not exists rows_document on rows (document)",
    "create table if not exists pending (key integer primary key, vector blob not null)",
    "create table if not exists removed (key integer primary key)",
    "create table if not exists metadata (name text primary key, value text not null)",
)
BUSY_TIMEOUT_S: Final = 10.0
# Rows that are put into an index, or looked up, at once.
BATCH_ROWS: Final = 4096
Keys = NDArray[np.int64]


class VectorIndex(Protocol):
    """An index in memory, of one of the libraries."""

    def add(self, keys: Keys, vectors: NDArray[Any]) -> None:
        """Add vectors `[N, W]` under keys `[N]` that are not in it."""

    def remove(self, keys: Keys) -> None:
        """Remove keys; those that are not in it are passed over."""

    def search(self, vector: NDArray[Any], limit: int) -> tuple[Sequence[int], Sequence[float]]:
        """Return the keys nearest to a vector `[W]` and their scores, the best first; at most `limit`."""

    def save(self, path: Path) -> None:
        """Write it to a file."""


# Makes an index for vectors of a layout's width and dtype, or opens the one in a file.
IndexOpener = Callable[[Path | None, StoreLayout], VectorIndex]


class IndexFile:
    """An index file with its rows; written by one process at a time.

    Args:
        path: The index; its rows are in `NAME.rows.db` beside it.
        open_index: Opens an index of the library.
        layout: How rows are written; None where it is only read.

    Raises:
        FormatError: Another program made the index, it holds other vectors, or it has gone.
        ArtefactError: Another process writes it.
        sqlite3.Error: The rows cannot be read.
    """

    def __init__(self, path: Path, open_index: IndexOpener, layout: StoreLayout | None) -> None:
        self._path = path
        self._open_index = open_index
        self._rows_path = path.with_name(f"{path.name}.rows.db")
        is_new = not self._rows_path.exists()
        if is_new and (layout is None or path.exists()):
            missing = "no such index" if layout is None else "exists, and nestvec did not write it"
            raise FormatError(f"{path}: {missing} ({self._rows_path.name} is not beside it)")
        self._lock = _lock(self._rows_path) if layout is not None else None
        try:
            self._database = open_database(
                self._rows_path, SCHEMA, busy_timeout_s=BUSY_TIMEOUT_S, synchronous="full"
            )
        except BaseException:
            self._unlock()
            raise
        try:
            self._layout = self._settle(layout)
        except BaseException:
            self.close()
            raise

    @property
    def metadata(self) -> Mapping[str, str]:
        """What was noted beside the rows."""
        return self._layout.metadata

    def stored(self) -> Iterator[StoredRow]:
        """Yield every row."""
        found = self._database.execute("select document, content_hash, chunks from rows")
        while batch := found.fetchmany(BATCH_ROWS):
            yield from (StoredRow(*row) for row in batch)

    def write(self, rows: Sequence[Row], vectors: Vectors) -> None:
        """Put rows, and their vectors until the end, into the database."""
        with_key = self._layout.id_kind is IdKind.INT
        for row, vector in zip(rows, vectors, strict=True):
            values = (
                row.id if with_key else None,
                row.id,
                row.document,
                row.start,
                row.end,
                row.chunk,
                row.chunks,
                row.content_hash,
                row.text if self._layout.with_text else None,
                json.dumps(dict(row.columns), ensure_ascii=False) if row.columns else None,
            )
            key = self._database.execute(
                'insert into rows (key, id, document, start, "end", chunk, chunks, content_hash, text, columns) '
                "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do update set document = excluded.document, "
                'start = excluded.start, "end" = excluded."end", chunk = excluded.chunk, chunks = excluded.chunks, '
                "content_hash = excluded.content_hash, text = excluded.text, columns = excluded.columns returning key",
                values,
            ).fetchone()[0]
            blob = np.ascontiguousarray(vector, self._layout.dtype).tobytes()
            self._database.execute("insert or replace into pending values (?, ?)", (key, blob))

    def commit(self) -> None:
        """Commit to the database, which syncs to the disk."""
        self._database.commit()

    def remove(self, documents: Mapping[str, str]) -> None:
        """Remove the old rows of documents, and note their keys for the index."""
        for document, content_hash in documents.items():
            gone = self._database.execute(
                "delete from rows where document = ? and content_hash <> ? returning key",
                (document, content_hash),
            ).fetchall()
            self._database.executemany("insert or ignore into removed values (?)", gone)
            self._database.executemany("delete from pending where key = ?", gone)
        self._database.commit()

    def finish(self) -> None:
        """Bring the index up to date with the rows, and replace its file."""
        self._database.commit()
        ((changes,),) = self._database.execute(
            "select (select count(*) from pending) + (select count(*) from removed)"
        )
        if not changes and self._path.exists():
            return
        index = self._open_index(self._path if self._path.exists() else None, self._layout)
        # A row that is written anew keeps its key, so its old vector goes first.
        for changed in self._batches("select key from removed union select key from pending"):
            index.remove(np.array([key for (key,) in changed], np.int64))
        for rows in self._batches("select key, vector from pending order by key"):
            keys = np.array([key for key, _ in rows], np.int64)
            flat = np.frombuffer(b"".join(blob for _, blob in rows), self._layout.dtype)
            index.add(keys, flat.reshape(len(rows), self._layout.width))
        draft = self._path.with_name(f".{self._path.name}.draft")
        index.save(draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(self._path)
        sync_folder(self._path.parent)
        self._database.execute("delete from pending")
        self._database.execute("delete from removed")
        self._database.commit()

    def close(self) -> None:
        """Close the database; what was not committed is undone."""
        self._database.close()
        self._unlock()

    def search(self, vector: NDArray[Any], limit: int) -> list[Hit]:
        """Search the index, and look its keys up.

        Raises:
            FormatError: A run was interrupted before it made the index.
        """
        ((pending,),) = self._database.execute("select count(*) from pending")
        if pending or not self._path.exists():
            raise FormatError(
                f"{self._path}: the index is not up to date, since a run was interrupted; run it again"
            )
        ((count,),) = self._database.execute("select count(*) from rows")
        if not count:
            return []
        index = self._open_index(self._path, self._layout)
        keys, scores = index.search(vector, min(limit, count))
        marks = ", ".join("?" * len(keys))
        found = self._database.execute(
            f"select key, id, document, text from rows where key in ({marks})",  # noqa: S608 - of question marks
            [int(key) for key in keys],
        )
        rows = {key: rest for key, *rest in found}
        return [
            Hit(float(score), rows[int(key)][0], rows[int(key)][1], rows[int(key)][2] or "")
            for key, score in zip(keys, scores, strict=True)
            if int(key) in rows
        ]

    def _settle(self, layout: StoreLayout | None) -> StoreLayout:
        """Check a layout against the one noted, or note it; return what holds."""
        noted = dict(self._database.execute("select name, value from metadata"))
        if not noted:
            if layout is None:
                raise FormatError(f"{self._path}: holds nothing yet; run nestvec embed again")
            own = {"width": str(layout.width), "dtype": layout.dtype, "id": layout.id_kind.value}
            self._database.executemany(
                "insert into metadata values (?, ?)", [*layout.metadata.items(), *own.items()]
            )
            self._database.commit()
            return layout
        kept = {name: value for name, value in noted.items() if name.startswith("nestvec.")}
        id_kind = IdKind(noted["id"])
        if layout is None:
            return StoreLayout(kept, int(noted["width"]), noted["dtype"], id_kind)
        check_same(str(self._path), kept, layout)
        if (layout.id_kind is IdKind.INT) != (id_kind is IdKind.INT):
            raise FormatError(
                f"{self._path}: has ids of kind '{id_kind.value}'; give --id {id_kind}"
            )
        if not self._path.exists() and self._lacks_vectors():
            raise FormatError(
                f"{self._path}: the index has gone, and {self._rows_path.name} has its rows without vectors; remove "
                "that file to embed all again"
            )
        return layout

    def _lacks_vectors(self) -> bool:
        """Whether there are rows whose vectors are in the index only."""
        query = "select 1 from rows where key not in (select key from pending) limit 1"
        return self._database.execute(query).fetchone() is not None

    def _batches(self, query: str) -> Iterator[list[Any]]:
        """Yield what a query finds, some thousand rows at a time."""
        found = self._database.execute(query)
        while batch := found.fetchmany(BATCH_ROWS):
            yield batch

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()


def library_failures() -> tuple[type[Exception], ...]:
    """Return what reading and writing an index raises."""
    return (OSError, sqlite3.Error, RuntimeError, ValueError)


def _lock(path: Path) -> IO[bytes]:
    """Lock the rows for this process.

    Raises:
        ArtefactError: Another process writes them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    if not try_lock(file):
        file.close()
        raise ArtefactError(f"{path}: another process is writing it")
    return file
