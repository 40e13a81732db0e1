"""Usage by key and month: it adds up over processes, servers and restarts, and is never reset silently."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from nestvec.errors import NotReadyError, StoreError
from nestvec.keys.key_usage import KeyUsage
from nestvec.keys.months import MonthlyTokens
from nestvec.keys.usage import UsageCounter
from nestvec.keys.usage_database import (
    DATABASE_NAME,
    EARLIER_NAME,
    read_usage,
    take_over_earlier,
    usage_engine,
)
from nestvec.keys.usage_table import UsageTable

from tests.support.services import postgres_server

NOVEMBER, DECEMBER = 1_795_000_000.0, 1_797_000_000.0


class Clock:
    """Unix seconds that a test sets."""

    now_s = NOVEMBER

    def __call__(self) -> float:
        """Return the time that the test has set."""
        return self.now_s


def open_table(folder: Path) -> UsageTable:
    """Open the table in a data folder, as a server does."""
    table = UsageTable(usage_engine(folder / DATABASE_NAME))
    table.make()
    take_over_earlier(folder, table)
    return table


def counter(folder: Path, clock: Clock, months: MonthlyTokens | None = None) -> UsageCounter:
    """A counter over a data folder."""
    return UsageCounter(lambda: open_table(folder), clock, months)


def write_earlier(folder: Path, *rows: tuple[str, str, int, int]) -> Path:
    """Write a usage.db as servers until 0.1 did."""
    path = folder / EARLIER_NAME
    connection = sqlite3.connect(path)
    connection.execute(
        "create table usage (key_id text, month text, requests integer, tokens integer, "
        "primary key (key_id, month))"
    )
    connection.executemany("insert into usage values (?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    return path


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL of these tests."""
    with postgres_server() as service:
        yield service.url


def test_it_adds_up_over_processes_and_restarts(tmp_path: Path) -> None:
    """Each process sees what the others have flushed."""
    clock, folder = Clock(), tmp_path / "deep"
    first, second = counter(folder, clock), counter(folder, clock)
    first.add("k", requests=1, tokens=10)
    second.add("k", tokens=5)
    assert (first.tokens_this_month("k"), second.tokens_this_month("k")) == (10, 5)
    first.flush()
    second.flush()
    first.flush()
    assert (first.tokens_this_month("k"), second.tokens_this_month("k")) == (15, 15)
    again = counter(folder, clock)
    again.flush()
    assert again.tokens_this_month("k") == 15
    assert read_usage(folder, first.current_month()) == {"k": (1, 15)}
    assert (folder / DATABASE_NAME).stat().st_mode & 0o077 == 0


def test_a_month_begins_at_nothing(tmp_path: Path) -> None:
    """What was used in the last second of the old month is written to that month."""
    clock = Clock()
    usage = counter(tmp_path, clock)
    usage.flush()
    usage.add_to_month("k", 7)
    usage.add("k", tokens=7, admitted=7)
    old = usage.current_month()
    assert not usage.admit("k", 7, 1)
    clock.now_s = DECEMBER
    assert usage.current_month() != old
    assert usage.tokens_this_month("k") == 0
    assert usage.admit("k", 7, 2)
    usage.add("k", tokens=2, admitted=2)
    usage.flush()
    assert usage.tokens_this_month("k") == 2
    assert read_usage(tmp_path, old) == {"k": (0, 7)}


def test_processes_share_a_month_before_it_is_written(tmp_path: Path) -> None:
    """What one process has admitted counts in the others at once, and once only after it was written."""
    clock, shared = Clock(), tmp_path / "months"
    one, two = (counter(tmp_path, clock, MonthlyTokens(shared)) for _ in range(2))
    one.flush()
    two.flush()
    assert one.admit("k", 100, 60)
    assert two.admit("k", 100, 60)  # the one that overshoots
    assert not one.admit("k", 100, 1)
    two.add_to_month("k", -60)  # it did not run
    assert one.tokens_this_month("k") == two.tokens_this_month("k") == 60
    one.add("k", tokens=60, admitted=60)
    one.flush()
    assert one.tokens_this_month("k") == two.tokens_this_month("k") == 60
    two.flush()
    assert two.tokens_this_month("k") == 60
    late = counter(tmp_path, clock, MonthlyTokens(shared))
    late.flush()
    assert late.tokens_this_month("k") == 60


def test_a_database_that_fails_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Counting goes on, the failure is logged once, and all is written when the database is back."""
    is_broken = True

    def open_or_fail() -> UsageTable:
        if is_broken:
            raise StoreError("disk full")
        return open_table(tmp_path)

    usage = UsageCounter(open_or_fail, Clock())
    for _ in range(3):
        usage.add("k", tokens=1)
        usage.flush()
    assert usage.tokens_this_month("k") == 3
    assert len(caplog.records) == 1
    with pytest.raises(NotReadyError):
        usage.admit("k", 100, 1)
    is_broken = False
    usage.flush()
    assert usage.problem == ""
    assert usage.admit("k", 100, 1)
    assert read_usage(tmp_path, usage.current_month()) == {"k": (0, 3)}


@pytest.mark.parametrize("damage", ["header", "pages", "junk"])
def test_a_damaged_database_is_refused(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys with a quota are refused, the log says why, and the file stays as it is: no month begins anew."""
    path = tmp_path / DATABASE_NAME
    usage = counter(tmp_path, Clock())
    for number in range(2000):
        usage.add(f"k{number}", tokens=5)
    usage.start()
    usage.close()
    content = bytearray(path.read_bytes())
    if damage == "header":
        content[:100] = os.urandom(100)
    elif damage == "pages":
        content[100:] = os.urandom(len(content) - 100)
    path.write_bytes(b"junk" * 500 if damage == "junk" else content)
    before = path.read_bytes()
    again = counter(tmp_path, Clock())
    again.start()
    with pytest.raises(NotReadyError):
        again.admit("k1", 100, 1)
    again.add("k1", tokens=1)
    assert "usage is not written" in caplog.text
    assert again.problem
    with pytest.raises(StoreError, match=DATABASE_NAME):
        read_usage(tmp_path, again.current_month())
    again.close()
    assert path.read_bytes() == before


def test_an_earlier_file_is_read_once(tmp_path: Path) -> None:
    """A usage.db of before is added and renamed, once also where the server ends before it has renamed it."""
    clock = Clock()
    month = counter(tmp_path, clock).current_month()
    earlier = write_earlier(tmp_path, ("k", month, 3, 40), ("k", "2025-01", 1, 2))
    assert read_usage(tmp_path, month) == {"k": (3, 40)}
    usage = counter(tmp_path, clock)
    usage.flush()
    moved = tmp_path / f"{EARLIER_NAME}.taken-over"
    assert usage.tokens_this_month("k") == 40
    assert (earlier.exists(), moved.exists()) == (False, True)
    moved.rename(earlier)
    again = counter(tmp_path, clock)
    again.flush()
    assert again.tokens_this_month("k") == 40
    assert read_usage(tmp_path, month) == {"k": (3, 40)}
    assert read_usage(tmp_path, "2025-01") == {"k": (1, 2)}


def test_two_processes_take_over_an_earlier_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that finds the file gone, as another one has just taken it over, makes no new one in its place."""
    month = counter(tmp_path, Clock()).current_month()
    earlier = write_earlier(tmp_path, ("k", month, 3, 40))
    first, second = (UsageTable(usage_engine(tmp_path / DATABASE_NAME)) for _ in range(2))
    first.make()
    connect = sqlite3.connect

    def connect_late(*arguments: Any, **options: Any) -> sqlite3.Connection:
        monkeypatch.undo()
        take_over_earlier(tmp_path, first)
        connection: sqlite3.Connection = connect(*arguments, **options)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_late)
    take_over_earlier(tmp_path, second)
    assert not earlier.exists()
    assert second.read(month) == [KeyUsage("k", month, 3, 40)]
    first.close()
    second.close()


def test_a_damaged_earlier_file_is_refused(tmp_path: Path) -> None:
    """A damaged usage.db stays where it is, and what to do is said: its quotas are not reset."""
    earlier = write_earlier(tmp_path)
    earlier.write_bytes(os.urandom(4096))
    usage = counter(tmp_path, Clock())
    usage.flush()
    assert "move it away" in usage.problem
    assert earlier.exists()
    with pytest.raises(NotReadyError):
        usage.admit("k", 100, 1)
    earlier.unlink()
    usage.flush()
    assert usage.admit("k", 100, 1)


def test_the_thread_writes_and_closes(tmp_path: Path) -> None:
    """The thread writes when it is closed."""
    usage = counter(tmp_path, Clock())
    usage.start()
    usage.add("k", tokens=4)
    usage.close()
    assert read_usage(tmp_path, usage.current_month()) == {"k": (0, 4)}


def test_a_server_without_keys_opens_nothing(tmp_path: Path) -> None:
    """Until there is a key no database is made: a server without keys may have no disk to write to."""
    keys: list[str] = []
    usage = UsageCounter(lambda: open_table(tmp_path), Clock(), is_needed=lambda: bool(keys))
    usage.start()
    assert not (tmp_path / DATABASE_NAME).exists()
    keys.append("k")
    usage.add("k", tokens=1)
    usage.close()
    assert read_usage(tmp_path, usage.current_month()) == {"k": (0, 1)}


def test_ids_of_before(tmp_path: Path) -> None:
    """What was counted under an earlier id is counted to the present one, once."""
    table = open_table(tmp_path)
    table.add([KeyUsage("old", "2026-11", 1, 10), KeyUsage("new", "2026-11", 2, 5)])
    for _ in range(2):
        table.rename_keys({"old": "new"})
        assert table.read("2026-11") == [KeyUsage("new", "2026-11", 3, 15)]
    assert table.read("2026-11", "old") == []


@pytest.mark.process
def test_servers_share_a_table_in_postgresql(postgres_url: str) -> None:
    """On PostgreSQL two servers add to the same rows, take an earlier store over once, and see each other's sums."""
    clock = Clock()
    tables = [UsageTable(sa.create_engine(postgres_url)) for _ in range(2)]
    for table in tables:
        table.make()
        assert table.is_empty()
    counters = [UsageCounter(lambda table=table: table, clock) for table in tables]  # type: ignore[misc] # bound at once
    for usage in counters:
        usage.add("k", requests=1, tokens=10)
        usage.flush()
    counters[0].flush()
    assert [usage.tokens_this_month("k") for usage in counters] == [20, 20]
    assert all(usage.is_shared for usage in counters)
    rows = [KeyUsage("k", counters[0].current_month(), 1, 5)]
    assert [table.take_over("a", rows) for table in tables] == [True, False]
    tables[0].rename_keys({"k": "n"})
    expected = [KeyUsage("n", counters[0].current_month(), 3, 25)]
    assert counters[1].read(counters[0].current_month()) == expected
    for table in tables:
        table.close()
