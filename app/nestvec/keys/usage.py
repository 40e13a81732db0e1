"""What each key has used in each month: counted in memory, added to the table of usage once a second.

Several processes and servers add to the same rows. A crash loses a second of counting, never what was written. While
the table cannot be read for the first time, keys with a month's quota are refused: that nothing is known is not taken
for nothing used.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from nestvec.errors import NotReadyError, StoreError
from nestvec.keys.key_usage import KeyUsage
from nestvec.keys.months import MonthlyTokens, month_number

# It brings SQLAlchemy, which a server without keys does not need.
if TYPE_CHECKING:
    from nestvec.keys.usage_table import UsageTable

log = logging.getLogger(__name__)

FLUSH_INTERVAL_S: Final = 1.0
CLOSE_S: Final = 10.0

# Opens the table: taking over what there was before, and making it where it is absent.
OpenTable = Callable[[], "UsageTable"]


class UsageCounter:
    """Counts the requests and tokens of each key by month.

    Args:
        open_table: Opens the table, in the thread that writes; tried again until it is there. None counts in memory
            only.
        clock: Unix time in seconds.
        months: What runs just now, with other processes where they share it.
        is_needed: Tells whether there are keys whose usage has to be known; until then the table is not opened.

    Attributes:
        problem: Why the table could not be opened or written when that was last tried; "" where it could.
    """

    def __init__(
        self,
        open_table: OpenTable | None = None,
        clock: Callable[[], float] = time.time,
        months: MonthlyTokens | None = None,
        *,
        is_needed: Callable[[], bool] = lambda: True,
    ) -> None:
        self.problem = ""
        self._open_table, self._clock, self._is_needed = open_table, clock, is_needed
        self._months = months or MonthlyTokens()
        self._lock = threading.Lock()
        self._table_lock = threading.Lock()
        self._table: UsageTable | None = None
        # Requests, tokens, and those of the tokens that `months` has, by key and month: what the table lacks yet.
        self._unwritten: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        self._written_tokens: dict[tuple[str, str], int] = {}
        self._is_known = open_table is None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._month = (0.0, "", 0)

    @property
    def is_shared(self) -> bool:
        """Whether servers on several machines count in the same table."""
        return self._table is not None and self._table.is_shared

    def start(self) -> None:
        """Read earlier sums, and start the thread that writes new ones; blocks until they are read or cannot be."""
        if self._open_table is None or self._thread is not None:
            return
        if self._is_needed():
            self.flush()
        self._thread = threading.Thread(target=self._run, name="nestvec-usage", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left and stop the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def add(self, key_id: str, *, requests: int = 0, tokens: int = 0, admitted: int = 0) -> None:
        """Count requests and tokens that a key has used just now.

        Args:
            key_id: Id of the key.
            requests: How many requests.
            tokens: How many tokens.
            admitted: How many of the tokens `admit` or `add_to_month` has added to the month.
        """
        with self._lock:
            counts = self._unwritten[key_id, self.current_month()]
            counts[0] += requests
            counts[1] += tokens
            counts[2] += admitted

    def tokens_this_month(self, key_id: str) -> int:
        """Return a key's tokens of this month: of other processes those that run just now, too, if it has a quota."""
        month = self.current_month()
        with self._lock:
            counts = self._unwritten.get((key_id, month), (0, 0, 0))
            written = self._written_tokens.get((key_id, month), 0)
            apart = counts[1] - counts[2]
        return int(self._months.used(key_id, self._month[2], written)) + apart

    def admit(self, key_id: str, quota: float, tokens: int) -> bool:
        """Add tokens that are about to run to a key's month, unless its quota was used up before them.

        Raises:
            NotReadyError: What the key has used is not known.
        """
        if not self._is_known:
            raise NotReadyError("What this API key has used this month cannot be read now.")
        month = self.current_month()
        with self._lock:
            counts = self._unwritten.get((key_id, month), (0, 0, 0))
            written = self._written_tokens.get((key_id, month), 0)
            apart = counts[1] - counts[2]
        return self._months.admit(key_id, self._month[2], written, quota - apart, tokens)

    def add_to_month(self, key_id: str, tokens: int) -> None:
        """Add tokens to a key's month whatever was used before; fewer than 0 take back what did not run."""
        self.current_month()
        self._months.add(key_id, self._month[2], 0, tokens)

    def current_month(self) -> str:
        """Return the current month in UTC, as 2026-11."""
        now_s = self._clock()
        until_s, month, _ = self._month
        if not until_s - 1 <= now_s < until_s:
            month = time.strftime("%Y-%m", time.gmtime(now_s))
            self._month = (float(int(now_s) + 1), month, month_number(month))
        return month

    def read(self, month: str, key_id: str | None = None) -> list[KeyUsage]:
        """Return what each key, or one of them, has used in a month; of other processes up to their last flush.

        Raises:
            StoreError: The table cannot be read now.
        """
        with self._table_lock:
            rows = self._opened().read(month, key_id) if self._open_table is not None else []
        sums = {row.key_id: (row.requests, row.tokens) for row in rows}
        with self._lock:
            for (used_by, when), counts in self._unwritten.items():
                if when == month and key_id in (None, used_by):
                    known = sums.get(used_by, (0, 0))
                    sums[used_by] = known[0] + counts[0], known[1] + counts[1]
        return [KeyUsage(name, month, *counts) for name, counts in sorted(sums.items())]

    def flush(self) -> None:
        """Add new counts to the table and read the sums of this month.

        Where that fails the counts stay in memory for the next flush.
        """
        month = self.current_month()
        with self._lock:
            unwritten, self._unwritten = self._unwritten, defaultdict(lambda: [0, 0, 0])
        rows = [
            KeyUsage(key_id, when, counts[0], counts[1])
            for (key_id, when), counts in unwritten.items()
        ]
        try:
            with self._table_lock:
                table = self._opened()
                table.add(rows)
        except StoreError as error:
            self._put_back(unwritten, error)
            return
        try:
            with self._table_lock:
                sums = {(row.key_id, month): row.tokens for row in table.read(month)}
        except StoreError as error:
            self._note_problem(error)
            return
        if self.problem:
            log.warning("usage is written again")
        self.problem = ""
        with self._lock:
            self._written_tokens, self._is_known = sums, True
        for (key_id, when), counts in unwritten.items():
            if counts[2]:
                written = sums.get((key_id, when), 0)
                self._months.note_written(key_id, month_number(when), counts[2], written)

    def _put_back(self, unwritten: Mapping[tuple[str, str], list[int]], error: StoreError) -> None:
        """Keep counts that could not be written."""
        with self._lock:
            for row, counts in unwritten.items():
                self._unwritten[row] = [
                    before + now for before, now in zip(self._unwritten[row], counts, strict=True)
                ]
        self._note_problem(error)

    def _note_problem(self, error: StoreError) -> None:
        """Log a failure once, not every second of a full disk."""
        if error.message != self.problem:
            log.error("usage is not written: %s", error.message)
        self.problem = error.message

    def _opened(self) -> "UsageTable":
        """Return the table, opened at its first use.

        Raises:
            StoreError: It cannot be opened.
        """
        if self._table is None:
            assert self._open_table is not None  # noqa: S101 - only a counter with a table is flushed
            self._table = self._open_table()
        return self._table

    def _run(self) -> None:
        """Flush at each interval until the counter is closed; the body of the thread."""
        while not self._stop.wait(FLUSH_INTERVAL_S):
            if (
                self._unwritten
                or self._written_tokens
                or (not self._is_known and self._is_needed())
            ):
                self.flush()
        if self._unwritten:
            self.flush()
        if self._table is not None:
            self._table.close()
