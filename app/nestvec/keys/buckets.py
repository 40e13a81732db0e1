"""How much of its rates each key has left: token buckets in memory, which several processes may share.

A bucket holds what may be taken at once and fills at its rate. Tokens are charged when they are known, which is after
the run: a bucket may go below zero, and the key waits until it is above again.
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
        self._file: int | None = None
        if path is None:
            self._rows: NDArray[np.void] = np.zeros(MAX_KEYS, ROW)
        else:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(self._file, MAX_KEYS * ROW.itemsize)
            self._map = mmap.mmap(self._file, MAX_KEYS * ROW.itemsize)
            self._rows = np.frombuffer(self._map, ROW)
        self._indices: dict[str, int] = {}

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
        with self._locked():
            row = self._rows[self._index_of(name, limit, now_s)]
            left = min(limit, float(row["left"]) + max(0.0, now_s - float(row["at_s"])) * rate)
            has_enough = left >= need
            if has_enough:
                left -= cost
            row["left"], row["at_s"] = left, now_s
        wait_s = 0.0 if has_enough else (need - left) / rate
        return BucketLevel(limit, left, (limit - left) / rate, wait_s)

    def charge(self, name: str, limit: float, rate: float, now_s: float, cost: float) -> None:
        """Take from a bucket whatever it holds: it may go below zero."""
        self.take(name, limit, rate, now_s, cost=cost, required=-float("inf"))

    def _index_of(self, name: str, limit: float, now_s: float) -> int:
        """The row of a bucket, made full where it is new. Buckets of keys that are gone stay until the server ends."""
        known = self._indices.get(name)
        if known is not None:
            return known
        bucket_id = name.encode()[:ID_BYTES]
        ids = self._rows["id"]
        matches = np.flatnonzero(ids == bucket_id)
        if len(matches):
            index = int(matches[0])
        else:
            free = np.flatnonzero(ids == b"")
            # Where there are too many for the table, names share the last row.
            index = int(free[0]) if len(free) else MAX_KEYS - 1
            self._rows[index] = (bucket_id, limit, now_s)
        self._indices[name] = index
        return index

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from changing any bucket within the block."""
        if self._file is None:
            yield
            return
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
