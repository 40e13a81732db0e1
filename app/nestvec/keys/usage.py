"""What each key has used in each month: counted in memory, added to a small database once a second.

Several processes add to the same rows. A crash loses a second of counting, never what was written.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from nestvec.system.sqlite import open_database, open_read_only

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S: Final = 1.0
BUSY_TIMEOUT_S: Final = 10.0
SCHEMA: Final = (
    "create table if not exists usage (key_id text, month text, requests integer, tokens integer, "
    "primary key (key_id, month))"
)
ADD: Final = (
    "insert into usage values (?, ?, ?, ?) on conflict (key_id, month) do update set "
    "requests = requests + excluded.requests, tokens = tokens + excluded.tokens"
)
DEFAULT_NAME: Final = "usage.db"  # in the data folder


class UsageCounter:
    """Counts the requests and tokens of each key by month.

    Args:
        path: The database; None counts in memory only.
        clock: Unix time in seconds.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        # Requests and tokens by key and month that the database does not have yet.
        self._unwritten: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self._written_tokens: dict[tuple[str, str], int] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._has_failed = False
        self._connection: sqlite3.Connection | None = None

    def start(self) -> None:
        """Start the thread that reads earlier sums and writes new ones."""
        if self._path is None or self._thread is not None:
            return
        self._thread = threading.Thread(target=self._run, name="nestvec-usage", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left and stop the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(BUSY_TIMEOUT_S)

    def add(self, key_id: str, *, requests: int = 0, tokens: int = 0) -> None:
        """Count requests and tokens that a key has used just now."""
        with self._lock:
            counts = self._unwritten[key_id, self.current_month()]
            counts[0] += requests
            counts[1] += tokens

    def tokens_this_month(self, key_id: str) -> int:
        """Return a key's tokens of this month, those of other processes up to their last flush."""
        row = key_id, self.current_month()
        with self._lock:
            counts = self._unwritten.get(row, (0, 0))
            return self._written_tokens.get(row, 0) + counts[1]

    def current_month(self) -> str:
        """Return the current month in UTC, as 2026-11."""
        return time.strftime("%Y-%m", time.gmtime(self._clock()))

    def take_over(self, ids: Mapping[str, str]) -> None:
        """Count what keys have used under earlier ids to their present ones; nothing where there is no database yet.

        Args:
            ids: Present ids by earlier ones.

        Raises:
            sqlite3.Error: The database cannot be written.
            OSError: The database cannot be opened.
        """
        if self._path is None or not self._path.exists():
            return
        connection = open_database(self._path, [SCHEMA], busy_timeout_s=BUSY_TIMEOUT_S)
        with contextlib.closing(connection), connection:
            # Taken before anything is read, so that two processes do not both count the same rows.
            connection.execute("begin immediate")
            for earlier, present in ids.items():
                query = "select month, requests, tokens from usage where key_id = ?"
                rows = connection.execute(query, (earlier,)).fetchall()
                connection.executemany(ADD, [(present, *row) for row in rows])
                connection.execute("delete from usage where key_id = ?", (earlier,))

    def flush(self) -> None:
        """Add new counts to the database and read the sums of this month.

        Where that fails the counts stay in memory for the next flush.
        """
        month = self.current_month()
        with self._lock:
            unwritten, self._unwritten = self._unwritten, defaultdict(lambda: [0, 0])
        rows = [(key_id, when, *counts) for (key_id, when), counts in unwritten.items()]
        try:
            connection = self._open()
            with connection:
                connection.executemany(ADD, rows)
            sums = connection.execute(
                "select key_id, tokens from usage where month = ?", (month,)
            ).fetchall()
        except (sqlite3.Error, OSError) as error:
            self._put_back(unwritten, error)
            return
        self._has_failed = False
        with self._lock:
            self._written_tokens = {(key_id, month): tokens for key_id, tokens in sums}

    def _put_back(self, unwritten: Mapping[tuple[str, str], list[int]], error: Exception) -> None:
        """Keep counts that could not be written, and log the failure once, not every second of a full disk."""
        with self._lock:
            for row, counts in unwritten.items():
                self._unwritten[row][0] += counts[0]
                self._unwritten[row][1] += counts[1]
        if not self._has_failed:
            log.warning("usage is not written: %s", type(error).__name__)
        self._has_failed = True
        self._connection = None

    def _open(self) -> sqlite3.Connection:
        """Return the connection of the thread that flushes, opened at its first use or after a failure."""
        if self._connection is None:
            assert self._path is not None  # noqa: S101 - only a counter with a path is flushed
            self._connection = open_database(self._path, [SCHEMA], busy_timeout_s=BUSY_TIMEOUT_S)
        return self._connection

    def _run(self) -> None:
        """Flush at each interval until the counter is closed; the body of the thread."""
        if self._path is not None and self._path.exists():
            self.flush()
        while not self._stop.wait(FLUSH_INTERVAL_S):
            if self._unwritten or self._written_tokens:
                self.flush()
        if self._unwritten:
            self.flush()
        if self._connection is not None:
            self._connection.close()


def read_usage(path: Path, month: str) -> dict[str, tuple[int, int]]:
    """Return requests and tokens of each key in a month (as 2026-11); empty where the database does not exist."""
    if not path.exists():
        return {}
    with contextlib.closing(open_read_only(path)) as connection:
        rows = connection.execute(
            "select key_id, requests, tokens from usage where month = ?", (month,)
        )
        return {key_id: (requests, tokens) for key_id, requests, tokens in rows}
