"""Vectors kept in a SQLite file across restarts: written behind, bounded in size, never in a request's way.

A file that is damaged or cut short is set aside and begun anew: it holds nothing that cannot be computed again.
Every row carries a checksum, so that what the disk made of a vector is not served.
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

log = logging.getLogger(__name__)

SCHEMA: Final = """
create table if not exists vectors (
    key blob primary key,
    vector blob not null,
    checksum integer not null,
    written_s integer not null
) without rowid
"""
BY_AGE: Final = "create index if not exists by_age on vectors (written_s)"
MOST_PARAMETERS: Final = 500  # of one query
MOST_WAITING: Final = 256  # calls whose vectors wait to be written; more are not kept
KEPT: Final = 0.9  # of the bytes allowed, when the file is full and the oldest go
MOST_DAMAGES: Final = 3  # a disk that keeps on damaging the file is left alone
# What SQLite says of a file that is not whole (the low byte of its code); all else is the disk's fault, or a setting's.
DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR)
BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
BUSY_S: Final = 5.0
CLOSE_S: Final = 10.0
Vectors = dict[bytes, bytes]


class VectorFile:
    """A `VectorStore` in a file.

    Args:
        path: The file; its folder is made.
        max_bytes: Its size; the oldest rows go first.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        self._generation = 0  # raised when the file is begun anew: every thread then opens it again
        self._is_off = False
        self._waiting: queue.Queue[Vectors | None] = queue.Queue(MOST_WAITING)
        self._writer = threading.Thread(target=self._write, name="nestvec-vectors", daemon=True)
        self._writer.start()

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Those that are there and whole; a failing disk has none."""
        found: Vectors = {}
        if self._is_off:
            return found
        try:
            connection = self._connection()
            for start in range(0, len(keys), MOST_PARAMETERS):
                part = keys[start : start + MOST_PARAMETERS]
                marks = ",".join("?" * len(part))
                rows = connection.execute(
                    f"select key, vector, checksum from vectors where key in ({marks})",  # noqa: S608 - marks only
                    part,
                )
                found |= {key: vector for key, vector, sum_ in rows if zlib.crc32(vector) == sum_}
        except (sqlite3.Error, OSError) as error:
            self._give_up_on(error)
        return found

    def put(self, vectors: Mapping[bytes, bytes]) -> None:
        """Write them, some time soon; where writing cannot keep up they are not kept."""
        if not self._is_off:
            with suppress(queue.Full):
                self._waiting.put_nowait(dict(vectors))

    def close(self) -> None:
        """Write what waits, within bounds."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=CLOSE_S)
        self._writer.join(CLOSE_S)
        with self._lock:
            self._is_off = True
            for connection in self._connections:
                connection.close()

    def _write(self) -> None:
        """Life of the writer."""
        while (vectors := self._waiting.get()) is not None:
            try:
                self._insert(vectors)
            except (sqlite3.Error, OSError) as error:
                self._give_up_on(error)

    def _insert(self, vectors: Vectors) -> None:
        connection = self._connection()
        now_s = int(time.time())
        rows = [(key, vector, zlib.crc32(vector), now_s) for key, vector in vectors.items()]
        with connection:
            connection.executemany("insert or replace into vectors values (?, ?, ?, ?)", rows)
        size = self._size(connection)
        if size > self._max_bytes:
            self._prune(connection, 1 - KEPT * self._max_bytes / size)

    @staticmethod
    def _size(connection: sqlite3.Connection) -> int:
        """Bytes in use."""
        pages, free, size = (
            int(connection.execute(f"pragma {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    @staticmethod
    def _prune(connection: sqlite3.Connection, share: float) -> None:
        """Let the oldest go; their pages are used again."""
        (count,) = connection.execute("select count(*) from vectors").fetchone()
        oldest = "select key from vectors order by written_s limit ?"
        with connection:
            connection.execute(
                f"delete from vectors where key in ({oldest})",  # noqa: S608 - a constant
                (int(share * count) + 1,),
            )

    def _connection(self) -> sqlite3.Connection:
        """This thread's own."""
        known: tuple[int, sqlite3.Connection] | None = getattr(self._local, "connection", None)
        if known is not None and known[0] == self._generation:
            return known[1]
        generation = self._generation
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Vectors tell much of their texts: nobody else on the machine need read them.
        self._path.touch(mode=0o600)
        # Closed by whoever closes the whole, hence from another thread.
        connection = sqlite3.connect(self._path, timeout=BUSY_S, check_same_thread=False)
        with self._lock:
            self._connections.append(connection)
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=normal")
        connection.execute(SCHEMA)
        connection.execute(BY_AGE)
        connection.commit()
        self._local.connection = (generation, connection)
        return connection

    def _give_up_on(self, error: Exception) -> None:
        """Begin a damaged file anew; anything else (a full or read-only disk) ends the keeping."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in BUSY:
            return
        with self._lock:
            if self._is_off:  # closing
                return
            self._generation += 1
            if code not in DAMAGED or self._generation > MOST_DAMAGES:
                self._is_off = True
                log.warning("vector_cache_file is off: %s", type(error).__name__)
                return
            log.warning("vector_cache_file was damaged and is begun anew")
            for suffix in ("", "-wal", "-shm"):
                with suppress(OSError):
                    self._path.with_name(self._path.name + suffix).unlink()
