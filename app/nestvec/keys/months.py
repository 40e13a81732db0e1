"""How many tokens each key has used this month, what runs just now included; several processes may share it.

The store of usage has what was written, which lags by a second. A row adds what was admitted since and is not written
yet, so that a burst cannot pass a month's quota while nobody has counted it.
"""

from pathlib import Path

from nestvec.keys.shared_rows import SharedRows


def month_number(month: str) -> int:
    """Return a month, as 2026-11, as a number that fits into a row: 202611."""
    return int(month.replace("-", ""))


class MonthlyTokens:
    """Tokens of each key in the current month.

    Args:
        path: File that is shared with other processes; None counts in this process only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._table = SharedRows(("written", "pending", "month"), path)
        self._written, self._pending, self._month = self._table.columns

    def used(self, key_id: str, month: int, written: float) -> float:
        """Return what a key has used.

        Args:
            key_id: Id of the key.
            month: The month, as `month_number` gives it.
            written: What this process knows the store to have.
        """
        with self._table.lock:
            return self._used(key_id, month, written)[0]

    def admit(self, key_id: str, month: int, written: float, quota: float, tokens: int) -> bool:
        """Add tokens that are about to run, unless the quota was used up before them.

        Returns:
            Whether they were added.
        """
        with self._table.lock:
            used, row = self._used(key_id, month, written)
            if used >= quota:
                return False
            self._pending[row] += tokens
            return True

    def add(self, key_id: str, month: int, written: float, tokens: int) -> None:
        """Add tokens whatever was used before; fewer than 0 take back what was admitted and did not run."""
        with self._table.lock:
            _, row = self._used(key_id, month, written)
            self._pending[row] = max(0.0, self._pending[row] + tokens)

    def note_written(self, key_id: str, month: int, tokens: int, written: float) -> None:
        """Note that the store has some of the tokens now.

        Args:
            key_id: Id of the key.
            month: The month that they were used in.
            tokens: How many of those that were added here it has now.
            written: What it has in all.
        """
        with self._table.lock:
            _, row = self._used(key_id, month, written)
            if self._month[row] == month:
                self._pending[row] = max(0.0, self._pending[row] - tokens)

    def _used(self, key_id: str, month: int, written: float) -> tuple[float, int]:
        """What a key has used, and the index of its row, which begins anew in a new month."""
        row, _ = self._table.find(key_id)
        if self._month[row] < month:
            self._written[row], self._pending[row], self._month[row] = written, 0.0, month
        elif self._month[row] == month and self._written[row] < written:
            self._written[row] = written
        return self._written[row] + self._pending[row], row
