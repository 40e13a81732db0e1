"""How much of its rates each key has left: token buckets in memory, which several processes may share.

A bucket holds what may be taken at once and fills at its rate. Tokens are taken when they are counted, which is before
they run: whatever is left lets a request in, the bucket may go below zero by it, and the key then waits until it is
above again.
"""

from dataclasses import dataclass
from pathlib import Path

from nestvec.keys.shared_rows import SharedRows


@dataclass(frozen=True, slots=True)
class BucketLevel:
    """What a bucket holds.

    Attributes:
        limit: What it holds when it is full.
        left: What it holds now; below 0 where more was used than there was.
        reset_s: Time until it is full again.
        wait_s: Time until it holds what was required; 0 where it does.
    """

    limit: float
    left: float
    reset_s: float
    wait_s: float


class Buckets:
    """A bucket for each name; a new one is full.

    Args:
        path: File that is shared with other processes; None keeps the buckets in this process.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._table = SharedRows(("left", "at_s"), path)

    def peek(
        self, name: str, limit: float, rate: float, now_s: float, *, required: float = 1.0
    ) -> BucketLevel:
        """Look what a bucket holds, without taking anything.

        Args:
            name: Name of the bucket.
            limit: What it holds when it is full.
            rate: What flows into it in a second.
            now_s: Monotonic time.
            required: What `wait_s` waits for.
        """
        return self.take(name, limit, rate, now_s, cost=0.0, required=required)

    def take(
        self,
        name: str,
        limit: float,
        rate: float,
        now_s: float,
        *,
        cost: float,
        required: float | None = None,
    ) -> BucketLevel:
        """Take from a bucket if it holds what is required, else nothing.

        Args:
            name: Name of the bucket.
            limit: What it holds when it is full.
            rate: What flows into it in a second.
            now_s: Monotonic time.
            cost: What is taken.
            required: What must be there; by default the cost.

        Returns:
            What it holds afterwards; `wait_s` is above 0 where nothing was taken.
        """
        need = cost if required is None else required
        lefts, times_s = self._table.columns
        with self._table.lock:
            row, is_new = self._table.find(name)
            left = limit if is_new else lefts[row] + max(0.0, now_s - times_s[row]) * rate
            left = min(limit, left)
            has_enough = left >= need
            if has_enough:
                left -= cost
            lefts[row], times_s[row] = left, now_s
        wait_s = 0.0 if has_enough else (need - left) / rate
        return BucketLevel(limit, left, (limit - left) / rate, wait_s)

    def charge(self, name: str, limit: float, rate: float, now_s: float, cost: float) -> None:
        """Take from a bucket whatever it holds: it may go below zero. Less than 0 is given back."""
        self.take(name, limit, rate, now_s, cost=cost, required=-float("inf"))
