"""SQLite files that several threads or processes write to: private, with a write-ahead log and a busy timeout."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Literal


def open_database(
    path: Path,
    schema: Sequence[str],
    *,
    busy_timeout_s: float,
    synchronous: Literal["normal", "full"] | None = None,
) -> sqlite3.Connection:
    """Open a database for reading and writing; the file, its folder and its tables are made where they are missing.

    The file is readable by its owner only. The connection may be closed by another thread than its user's.

    Args:
        path: The file.
        schema: Statements that make what is missing: each says "if not exists".
        busy_timeout_s: How long a statement waits for another writer.
        synchronous: When SQLite syncs to the disk: "full" at each commit; "normal" at checkpoints of the log, so that
            a power failure may lose the last commits but never damages the file (https://sqlite.org/wal.html). None
            leaves SQLite's default.

    Raises:
        sqlite3.Error: The file is no database, damaged, or locked for too long.
        OSError: The file or its folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=busy_timeout_s, check_same_thread=False)
    try:
        connection.execute("pragma journal_mode=wal")
        if synchronous is not None:
            connection.execute(f"pragma synchronous={synchronous}")
        for statement in schema:
            connection.execute(statement)
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


def open_read_only(path: Path) -> sqlite3.Connection:
    """Open an existing database for reading.

    Raises:
        sqlite3.Error: The file cannot be opened.
    """
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)
