"""Vectors kept in a SQLite file across restarts: written in the background, bounded in size, never in a request's way.

A file that is damaged or cut short is removed and started anew: it holds nothing that cannot be computed again.
Every row carries a checksum, so that a vector that the disk has changed is not served.
"""

import logging
import queue
import sqlite3
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from nestvec.system.sqlite import open_database

log = logging.getLogger(__name__)

TABLE: Final = """
create table if not exists vectors (
    key blob primary key,
    vector blob not null,
    checksum integer not null,
    written_s integer not null
) without rowid
"""
INDEX_BY_AGE: Final = "create index if not exists by_age on vectors (written_s)"
MAX_PARAMETERS: Final = 500  # of one query
MAX_WAITING_CALLS: Final = 256  # calls whose vectors wait to be written; those of more are dropped
PRUNED_SHARE: Final = 0.9  # share of the allowed bytes that pruning leaves in a full file
MAX_RESTARTS: Final = 3  # a disk that damages the file again and again is left alone
# SQLite's codes (their low bytes) for a file that is not whole; all others are the disk's fault, or a setting's.
DAMAGED_CODES: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR)
BUSY_CODES: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
BUSY_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 10.0
Vectors = dict[bytes, bytes]


class VectorFile:
    """A `VectorStore` in a SQLite file.

    Args:
        path: The file; its folder is made where it is missing.
        max_bytes: Size that the file is kept to; the oldest rows go first.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        # Raised when the file is started anew: every thread then opens it again.
        self._generation = 0
        self._is_off = False
        self._waiting: queue.Queue[Vectors | None] = queue.Queue(MAX_WAITING_CALLS)
        self._writer = threading.Thread(
            target=self._write_waiting, name="nestvec-vectors", daemon=True
        )
        self._writer.start()

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return the vectors of those keys that are in the file and whole; a failing disk has none."""
        vectors: Vectors = {}
        if self._is_off:
            return vectors
        try:
            connection = self._connection()
            for start in range(0, len(keys), MAX_PARAMETERS):
                part = keys[start : start + MAX_PARAMETERS]
                marks = ",".join("?" * len(part))
                rows = connection.execute(
                    f"select key, vector, checksum from vectors where key in ({marks})",  # noqa: S608 - marks only
                    part,
                )
                vectors |= {key: vector for key, vector, sum_ in rows if zlib.crc32(vector) == sum_}
        except (sqlite3.Error, OSError) as error:
            self._handle_failure(error)
        return vectors

    def put(self, vectors: Mapping[bytes, bytes]) -> None:
        """Queue vectors to be written; they are dropped where the writer cannot keep up."""
        if not self._is_off:
            with suppress(queue.Full):
                self._waiting.put_nowait(dict(vectors))

    def close(self) -> None:
        """Write what waits, for at most `CLOSE_TIMEOUT_S`, and close the file."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=CLOSE_TIMEOUT_S)
        self._writer.join(CLOSE_TIMEOUT_S)
        with self._lock:
            self._is_off = True
            for connection in self._connections:
                connection.close()

    def _write_waiting(self) -> None:
        """Insert queued vectors until the store is closed; the body of the writer's thread."""
        while (vectors := self._waiting.get()) is not None:
            try:
                self._insert(vectors)
            except (sqlite3.Error, OSError) as error:
                self._handle_failure(error)

    def _insert(self, vectors: Vectors) -> None:
        connection = self._connection()
        now_s = int(time.time())
        rows = [(key, vector, zlib.crc32(vector), now_s) for key, vector in vectors.items()]
        with connection:
            connection.executemany("insert or replace into vectors values (?, ?, ?, ?)", rows)
        size_bytes = self._used_bytes(connection)
        if size_bytes > self._max_bytes:
            self._prune(connection, 1 - PRUNED_SHARE * self._max_bytes / size_bytes)

    @staticmethod
    def _used_bytes(connection: sqlite3.Connection) -> int:
        """Return the bytes of the pages in use."""
        pages, free_pages, page_bytes = (
            int(connection.execute(f"pragma {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free_pages) * page_bytes

    @staticmethod
    def _prune(connection: sqlite3.Connection, share: float) -> None:
        """Delete this share of the rows, the oldest first; their pages are used again."""
        (count,) = connection.execute("select count(*) from vectors").fetchone()
        oldest = "select key from vectors order by written_s limit ?"
        with connection:
            connection.execute(
                f"delete from vectors where key in ({oldest})",  # noqa: S608 - a constant
                (int(share * count) + 1,),
            )

    def _connection(self) -> sqlite3.Connection:
        """Return the calling thread's connection, opened at its first use and whenever the file is started anew."""
        opened: tuple[int, sqlite3.Connection] | None = getattr(self._local, "connection", None)
        if opened is not None and opened[0] == self._generation:
            return opened[1]
        generation = self._generation
        # The file is private: vectors tell much of their texts.
        connection = open_database(
            self._path,
            [TABLE, INDEX_BY_AGE],
            busy_timeout_s=BUSY_TIMEOUT_S,
            synchronous="normal",
        )
        with self._lock:
            self._connections.append(connection)
        self._local.connection = (generation, connection)
        return connection

    def _handle_failure(self, error: Exception) -> None:
        """Start a damaged file anew; anything else (a full or read-only disk) switches the store off."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in BUSY_CODES:
            return
        with self._lock:
            if self._is_off:  # closing
                return
            self._generation += 1
            if code not in DAMAGED_CODES or self._generation > MAX_RESTARTS:
                self._is_off = True
                log.warning("vector_cache_file is off: %s", type(error).__name__)
                return
            log.warning("vector_cache_file was damaged and is begun anew")
            for suffix in ("", "-wal", "-shm"):
                with suppress(OSError):
                    self._path.with_name(self._path.name + suffix).unlink()
