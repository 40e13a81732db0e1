"""SQLite files: private, made where they are missing, and opened unchanged where they exist."""

import sqlite3
from pathlib import Path

import pytest
from nestvec.system.sqlite import open_database, open_read_only

SCHEMA = ["create table if not exists numbers (value integer)"]


def test_a_missing_database_is_made_for_its_owner_only(tmp_path: Path) -> None:
    """The folder, the file and the tables are made; the file uses a write-ahead log and mode 0600."""
    path = tmp_path / "deep" / "numbers.db"
    connection = open_database(path, SCHEMA, busy_timeout_s=1)
    assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
    assert connection.execute("pragma busy_timeout").fetchone() == (1000,)
    assert connection.execute("select count(*) from numbers").fetchone() == (0,)
    assert path.stat().st_mode & 0o777 == 0o600
    connection.close()


def test_an_existing_database_keeps_its_rows(tmp_path: Path) -> None:
    """A second opening changes nothing; a reader sees the rows and cannot write."""
    path = tmp_path / "numbers.db"
    for _ in range(2):
        connection = open_database(path, SCHEMA, busy_timeout_s=1, synchronous="normal")
        with connection:
            connection.execute("insert into numbers values (7)")
        connection.close()
    reader = open_read_only(path)
    assert reader.execute("select value from numbers").fetchall() == [(7,), (7,)]
    with pytest.raises(sqlite3.OperationalError):
        reader.execute("insert into numbers values (8)")
    reader.close()


def test_something_else_is_an_error(tmp_path: Path) -> None:
    """A file that is no database is refused and left as it is."""
    path = tmp_path / "numbers.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        open_database(path, SCHEMA, busy_timeout_s=1)
    assert path.read_bytes() == b"no database at all" * 100
