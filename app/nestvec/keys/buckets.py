"""How much of its rates each key has left: token buckets in memory, which several processes may share.

A bucket holds what may be asked for at once and fills at its rate. Tokens are charged when they are known, which is
after the run: a bucket may go below nothing, and the key waits until it is above again.
"""

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

ID_BYTES: Final = 32
MAX_KEYS: Final = 8192
ROW: Final = np.dtype([("id", f"S{ID_BYTES}"), ("left", "f8"), ("at_s", "f8")])


@dataclass(frozen=True, slots=True)
class Level:
    """What a bucket holds.

    Attributes:
        limit: When full.
        left: Now; below 0 where more was used than there was.
        reset_s: Until it is full again.
        wait_s: Until so much is in it as is wanted; 0 where it is.
    """

    limit: float
    left: float
    reset_s: float
    wait_s: float


class Buckets:
    """One bucket for each name; made full.

    Args:
        path: A file to share with other processes; None keeps them here.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._lock: int | None = None
        if path is None:
            self._rows: NDArray[np.void] = np.zeros(MAX_KEYS, ROW)
        else:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(self._lock, MAX_KEYS * ROW.itemsize)
            self._map = mmap.mmap(self._lock, MAX_KEYS * ROW.itemsize)
            self._rows = np.frombuffer(self._map, ROW)
        self._places: dict[str, int] = {}

    def look(
        self, name: str, limit: float, rate: float, now_s: float, *, wanted: float = 1.0
    ) -> Level:
        """What a bucket holds, without taking anything.

        Args:
            name: Of the bucket.
            limit: When full.
            rate: Filled in a second.
            now_s: Monotonic time.
            wanted: For `wait_s`.
        """
        return self.take(name, limit, rate, now_s, cost=0.0, wanted=wanted)

    def take(
        self,
        name: str,
        limit: float,
        rate: float,
        now_s: float,
        *,
        cost: float,
        wanted: float | None = None,
    ) -> Level:
        """Take from a bucket if it holds what is wanted; else nothing.

        Args:
            name: Of the bucket.
            limit: When full.
            rate: Filled in a second.
            now_s: Monotonic time.
            cost: Taken.
            wanted: Must be there; by default the cost.
        """
        need = cost if wanted is None else wanted
        with self._held():
            row = self._rows[self._place(name, limit, now_s)]
            left = min(limit, float(row["left"]) + max(0.0, now_s - float(row["at_s"])) * rate)
            has_enough = left >= need
            if has_enough:
                left -= cost
            row["left"], row["at_s"] = left, now_s
        wait_s = 0.0 if has_enough else (need - left) / rate
        return Level(limit, left, (limit - left) / rate, wait_s)

    def charge(self, name: str, limit: float, rate: float, now_s: float, cost: float) -> None:
        """Take from a bucket, also into debt."""
        self.take(name, limit, rate, now_s, cost=cost, wanted=-float("inf"))

    def _place(self, name: str, limit: float, now_s: float) -> int:
        """Where a bucket is; made full where it is new. Those of keys that are gone stay until the server ends."""
        known = self._places.get(name)
        if known is not None:
            return known
        wanted = name.encode()[:ID_BYTES]
        ids = self._rows["id"]
        found = np.flatnonzero(ids == wanted)
        if not len(found):
            free = np.flatnonzero(ids == b"")
            # Too many for the table: names share the last place.
            place = int(free[0]) if len(free) else MAX_KEYS - 1
            self._rows[place] = (wanted, limit, now_s)
            found = np.array([place])
        self._places[name] = int(found[0])
        return self._places[name]

    @contextmanager
    def _held(self) -> Iterator[None]:
        """While no other process changes anything."""
        if self._lock is None:
            yield
            return
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)
