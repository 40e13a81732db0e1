"""What each key has used in each month: counted in memory, added up in a small database once a second.

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

log = logging.getLogger(__name__)

EVERY_S: Final = 1.0
BUSY_S: Final = 10.0
SCHEMA: Final = (
    "create table if not exists usage (key_id text, month text, requests integer, tokens integer, "
    "primary key (key_id, month))"
)
ADD: Final = (
    "insert into usage values (?, ?, ?, ?) on conflict (key_id, month) do update set "
    "requests = requests + excluded.requests, tokens = tokens + excluded.tokens"
)
DEFAULT_NAME: Final = "usage.db"  # in the data folder


class Usage:
    """Counts requests and tokens.

    Args:
        path: Of the database; None counts in memory only.
        clock: Unix seconds.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._new: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self._known: dict[tuple[str, str], int] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._has_failed = False
        self._connection: sqlite3.Connection | None = None

    def start(self) -> None:
        """Read what was used, and begin to write."""
        if self._path is None or self._thread is not None:
            return
        self._thread = threading.Thread(target=self._live, name="nestvec-usage", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(BUSY_S)

    def add(self, key_id: str, *, requests: int = 0, tokens: int = 0) -> None:
        """A key has used so much."""
        with self._lock:
            new = self._new[key_id, self.month()]
            new[0] += requests
            new[1] += tokens

    def tokens(self, key_id: str) -> int:
        """Of this month, by all processes as far as they have told."""
        place = key_id, self.month()
        with self._lock:
            new = self._new.get(place, (0, 0))
            return self._known.get(place, 0) + new[1]

    def month(self) -> str:
        """Now, as 2026-11."""
        return time.strftime("%Y-%m", time.gmtime(self._clock()))

    def flush(self) -> None:
        """Add what is new to the database, and read the sums."""
        month = self.month()
        with self._lock:
            new, self._new = self._new, defaultdict(lambda: [0, 0])
        rows = [(key, when, *counts) for (key, when), counts in new.items()]
        try:
            connection = self._open()
            with connection:
                connection.executemany(ADD, rows)
            found = connection.execute(
                "select key_id, tokens from usage where month = ?", (month,)
            ).fetchall()
        except (sqlite3.Error, OSError) as error:
            self._put_back(new, error)
            return
        self._has_failed = False
        with self._lock:
            self._known = {(key, month): tokens for key, tokens in found}

    def _put_back(self, new: Mapping[tuple[str, str], list[int]], error: Exception) -> None:
        with self._lock:
            for place, counts in new.items():
                self._new[place][0] += counts[0]
                self._new[place][1] += counts[1]
        if not self._has_failed:  # once, not every second of a full disk
            log.warning("usage is not written: %s", type(error).__name__)
        self._has_failed = True
        self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            assert self._path is not None  # noqa: S101 - whoever flushes has one
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
            self._connection = sqlite3.connect(self._path, timeout=BUSY_S, check_same_thread=False)
            self._connection.execute("pragma journal_mode=wal")
            self._connection.execute(SCHEMA)
        return self._connection

    def _live(self) -> None:
        if self._path is not None and self._path.exists():
            self.flush()
        while not self._stop.wait(EVERY_S):
            if self._new or self._known:
                self.flush()
        if self._new:
            self.flush()
        if self._connection is not None:
            self._connection.close()


def read_usage(path: Path, month: str) -> dict[str, tuple[int, int]]:
    """Requests and tokens of each key in a month, for people; nothing where nothing was counted."""
    if not path.exists():
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "select key_id, requests, tokens from usage where month = ?", (month,)
        )
        return {key: (requests, tokens) for key, requests, tokens in rows}
