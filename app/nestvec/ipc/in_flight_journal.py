"""Which items the workers of an engine process are running, noted where a killed process leaves it as it was.

The next process reads it: whatever was running is a suspect. Items are known by keyed digests only; the journal holds
no text and no token.
"""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import Item, ItemOptions
from nestvec.ipc.shared_file import (
    DIGEST_BYTES,
    MAX_NOTED_ITEMS,
    MAX_SLOTS,
    SLOT,
    STATUS,
    map_file,
)

Digest = bytes


class InFlightJournal:
    """The journal in the shared file, with a slot for each worker.

    Args:
        path: The shared file.
        secret: Key of the digests.
    """

    def __init__(self, path: Path, secret: bytes) -> None:
        self._secret = secret
        self._slots: NDArray[np.void] = np.frombuffer(
            map_file(path), SLOT, MAX_SLOTS, STATUS.itemsize
        )
        self._lock = threading.Lock()
        self._free = list(range(MAX_SLOTS))[::-1]

    def digest(self, item: Item, options: ItemOptions) -> Digest:
        """Return what an item is known by: a hash of its tokens and of what is asked of them."""
        hasher = hashlib.blake2b(key=self._secret, digest_size=DIGEST_BYTES)
        hasher.update(f"{options.kind_of(item)} {options.exits} {item.spans}".encode())
        hasher.update(np.ascontiguousarray(item.ids).tobytes())
        return hasher.digest()

    def slot(self) -> "JournalSlot":
        """Return a slot for one more worker."""
        with self._lock:
            number = self._free.pop() if self._free else -1
        return JournalSlot(self, number)

    def release(self, number: int) -> None:
        """Let another worker have a slot."""
        with self._lock:
            self._free.append(number)

    def write(self, number: int, digests: Sequence[Digest]) -> None:
        """Note what a worker runs; the count comes last, so that a half-written note is none."""
        slot = self._slots[number]
        slot["count"] = 0
        noted = digests[:MAX_NOTED_ITEMS]
        slot["digests"][: len(noted)] = np.frombuffer(b"".join(noted), f"V{DIGEST_BYTES}")
        slot["count"] = len(noted)

    def erase(self, number: int) -> None:
        """Note that a worker has finished what it ran."""
        self._slots[number]["count"] = 0

    def running(self) -> list[list[Digest]]:
        """Return what each worker that ran anything was running."""
        batches = []
        for slot in self._slots[self._slots["count"] > 0]:
            digests = slot["digests"][: min(int(slot["count"]), MAX_NOTED_ITEMS)]
            batches.append([bytes(digest.tobytes()) for digest in digests])
        return batches

    def wipe(self) -> None:
        """Erase all slots: a new engine process begins."""
        self._slots["count"] = 0


class JournalSlot:
    """One worker's slot in the journal.

    Args:
        journal: The journal.
        number: Number of the slot; -1 where there are too many workers: nothing is noted then.
    """

    def __init__(self, journal: InFlightJournal, number: int) -> None:
        self._journal, self._number = journal, number

    def begin(self, items: Sequence[Item], options: Sequence[ItemOptions]) -> None:
        """Note that these items run from now on, each with the options of its call."""
        if self._number >= 0:
            digest = self._journal.digest
            digests = [digest(item, of) for item, of in zip(items, options, strict=True)]
            self._journal.write(self._number, digests)

    def end(self) -> None:
        """Note that nothing runs any more."""
        if self._number >= 0:
            self._journal.erase(self._number)

    def release(self) -> None:
        """Give the slot back; nothing is noted in it any more."""
        number, self._number = self._number, -1
        if number >= 0:
            self._journal.release(number)
