"""Rows of numbers by name, in memory that several processes may share."""

import fcntl
import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np

NAME_BYTES: Final = 32
NUMBER_BYTES: Final = 8
MAX_ROWS: Final = 8192


class RowLock:
    """Keeps other threads, and other processes where they share the rows, from changing any row.

    Args:
        file: Descriptor of the shared file; None where there is none.
    """

    __slots__ = ("_file", "_threads")

    def __init__(self, file: int | None) -> None:
        self._file, self._threads = file, threading.Lock()

    def __enter__(self) -> None:
        """Wait for the lock."""
        self._threads.acquire()
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_EX)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock."""
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._threads.release()


class SharedRows:
    """A table with a row for each name; all rows are changed under one lock.

    Args:
        columns: Names of the numbers that a row holds, all of them float64.
        path: File that is shared with other processes; None keeps the rows in this process.

    Attributes:
        columns: The numbers of each column, by the index of the row.
        lock: To be held while any row is looked at or changed.
    """

    def __init__(self, columns: Sequence[str], path: Path | None = None) -> None:
        size_bytes = MAX_ROWS * (NAME_BYTES + NUMBER_BYTES * len(columns))
        file: int | None = None
        if path is None:
            memory: bytearray | mmap.mmap = bytearray(size_bytes)
        else:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(file, size_bytes)
            memory = mmap.mmap(file, size_bytes)
        self._names = np.frombuffer(memory, f"S{NAME_BYTES}", MAX_ROWS)
        # As memory views: their elements are read and set in a tenth of the time that numpy's take.
        numbers = memoryview(memory)[MAX_ROWS * NAME_BYTES :].cast("d")
        self.columns = tuple(
            numbers[start : start + MAX_ROWS] for start in range(0, len(numbers), MAX_ROWS)
        )
        self.lock = RowLock(file)
        self._indices: dict[str, int] = {}

    def find(self, name: str) -> tuple[int, bool]:
        """Return the index of a name's row, and whether it is new: then it holds zeros. To be called under the lock.

        Rows of names that are gone stay until the server ends. Where there are too many, names share the last row.
        """
        known = self._indices.get(name)
        if known is not None:
            return known, False
        row_id = name.encode()[:NAME_BYTES]
        matches = np.flatnonzero(self._names == row_id)
        is_new = not len(matches)
        if is_new:
            free = np.flatnonzero(self._names == b"")
            index = int(free[0]) if len(free) else MAX_ROWS - 1
            for column in self.columns:
                column[index] = 0.0
            self._names[index] = row_id
        else:
            index = int(matches[0])
        self._indices[name] = index
        return index, is_new
