"""Usage by key and month: it adds up over processes and restarts; a full disk loses nothing that memory has."""

import sqlite3
from pathlib import Path

import pytest
from nestvec.keys.usage import UsageCounter, read_usage

NOVEMBER, DECEMBER = 1_795_000_000.0, 1_797_000_000.0


class Clock:
    """Unix seconds that a test sets."""

    now_s = NOVEMBER

    def __call__(self) -> float:
        """Return the time that the test has set."""
        return self.now_s


def test_it_adds_up_over_processes_and_restarts(tmp_path: Path) -> None:
    """Each process sees what the others have flushed."""
    clock, path = Clock(), tmp_path / "deep" / "usage.db"
    first, second = UsageCounter(path, clock), UsageCounter(path, clock)
    first.add("k", requests=1, tokens=10)
    second.add("k", tokens=5)
    assert (first.tokens_this_month("k"), second.tokens_this_month("k")) == (10, 5)
    first.flush()
    second.flush()
    first.flush()
    assert (first.tokens_this_month("k"), second.tokens_this_month("k")) == (15, 15)
    again = UsageCounter(path, clock)
    again.flush()
    assert again.tokens_this_month("k") == 15
    assert read_usage(path, first.current_month()) == {"k": (1, 15)}
    assert path.stat().st_mode & 0o077 == 0


def test_a_month_begins_at_nothing(tmp_path: Path) -> None:
    """What was used in the last second of the old month is written to that month."""
    clock = Clock()
    usage = UsageCounter(tmp_path / "usage.db", clock)
    usage.add("k", tokens=7)
    old = usage.current_month()
    clock.now_s = DECEMBER
    assert usage.current_month() != old
    assert usage.tokens_this_month("k") == 0
    usage.add("k", tokens=2)
    usage.flush()
    assert usage.tokens_this_month("k") == 2
    assert read_usage(tmp_path / "usage.db", old) == {"k": (0, 7)}


def test_a_disk_that_fails_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Counting goes on, the failure is logged once, and all is written when the disk is back."""
    usage = UsageCounter(tmp_path / "usage.db", Clock())

    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(sqlite3, "connect", fail)
        for _ in range(3):
            usage.add("k", tokens=1)
            usage.flush()
    assert usage.tokens_this_month("k") == 3
    assert len(caplog.records) == 1
    usage.flush()
    assert read_usage(tmp_path / "usage.db", usage.current_month()) == {"k": (0, 3)}


def test_the_thread_writes_and_closes(tmp_path: Path) -> None:
    """The thread writes when it is closed; nothing is written where nothing was used."""
    usage = UsageCounter(tmp_path / "usage.db", Clock())
    for tokens in (0, 4):
        usage = UsageCounter(tmp_path / "usage.db", Clock())
        usage.start()
        if tokens:
            usage.add("k", tokens=tokens)
        usage.close()
        assert (tmp_path / "usage.db").exists() is bool(tokens)
    assert read_usage(tmp_path / "usage.db", usage.current_month()) == {"k": (0, 4)}
