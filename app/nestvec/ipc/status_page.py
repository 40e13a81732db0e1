"""A file in memory that outlives the core: its heartbeat, how full it is, and which items its workers are running.

Mapped by the core, which writes, and by the supervisor and the fronts, which read. A killed process leaves it as it
was, so the next one knows which items were running: those are suspects. Items are known by keyed digests only; no text
or token is in it.
"""

import hashlib
import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import Item

DIGEST_BYTES: Final = 16
MAX_LANES: Final = 256
MAX_NOTED: Final = 1024  # items of one batch; a larger one's others are not suspects
HEAD: Final = np.dtype(
    [("beat_s", "f8"), ("is_ready", "u1"), ("overdue_s", "f8"), ("waiting_tokens", "f8"),
     ("token_s", "f8"), ("max_tokens", "f8")]
)  # fmt: skip
LANE: Final = np.dtype([("count", "i4"), ("digests", f"V{DIGEST_BYTES}", (MAX_NOTED,))])
Digest = bytes


class Flight:
    """The mapped file.

    Args:
        path: Made where absent, readable by its owner only.
        secret: Keys the digests.
    """

    def __init__(self, path: Path, secret: bytes) -> None:
        self._secret = secret
        size = HEAD.itemsize + MAX_LANES * LANE.itemsize
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, size)
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._head: NDArray[np.void] = np.frombuffer(self._map, HEAD, 1)
        self._lanes: NDArray[np.void] = np.frombuffer(self._map, LANE, MAX_LANES, HEAD.itemsize)
        self._lock = threading.Lock()
        self._free = list(range(MAX_LANES))[::-1]

    def digest(self, item: Item) -> Digest:
        """What an item is known by: its tokens and what is asked of them."""
        hasher = hashlib.blake2b(key=self._secret, digest_size=DIGEST_BYTES)
        hasher.update(f"{item.kind} {item.exits} {item.spans}".encode())
        hasher.update(np.ascontiguousarray(item.ids).tobytes())
        return hasher.digest()

    def beat(self, now_s: float, *, is_ready: bool, overdue_s: float) -> None:
        """The core is alive.

        Args:
            now_s: Monotonic time.
            is_ready: Whether its first model is loaded.
            overdue_s: By how much a batch is over its time.
        """
        head = self._head[0]
        head["is_ready"], head["overdue_s"], head["beat_s"] = is_ready, overdue_s, now_s

    def pulse(self) -> tuple[float, bool, float]:
        """What the last beat said."""
        head = self._head[0]
        return float(head["beat_s"]), bool(head["is_ready"]), float(head["overdue_s"])

    def note_queue(self, waiting_tokens: float, token_s: float, max_tokens: float) -> None:
        """How full the core is, for fronts that would rather know before they tokenise."""
        head = self._head[0]
        head["waiting_tokens"], head["token_s"] = waiting_tokens, token_s
        head["max_tokens"] = max_tokens

    def queue(self) -> tuple[float, float, float]:
        """Tokens that wait, seconds that each takes, and the most that may wait."""
        head = self._head[0]
        return float(head["waiting_tokens"]), float(head["token_s"]), float(head["max_tokens"])

    def lane(self) -> "FlightLane":
        """A worker's place; given back when the worker is collected."""
        with self._lock:
            number = self._free.pop() if self._free else -1
        return FlightLane(self, number)

    def give_back(self, number: int) -> None:
        """A worker's place is free."""
        with self._lock:
            self._free.append(number)

    def write(self, number: int, digests: Sequence[Digest]) -> None:
        """Note what a worker runs; the count last, so that a half-written note is none."""
        lane = self._lanes[number]
        lane["count"] = 0
        noted = digests[:MAX_NOTED]
        lane["digests"][: len(noted)] = np.frombuffer(b"".join(noted), f"V{DIGEST_BYTES}")
        lane["count"] = len(noted)

    def erase(self, number: int) -> None:
        """A worker has finished."""
        self._lanes[number]["count"] = 0

    def running(self) -> list[list[Digest]]:
        """What each worker was running, as far as it ran anything."""
        found = []
        for lane in self._lanes[self._lanes["count"] > 0]:
            digests = lane["digests"][: min(int(lane["count"]), MAX_NOTED)]
            found.append([bytes(one.tobytes()) for one in digests])
        return found

    def wipe(self) -> None:
        """A new core begins."""
        self._lanes["count"] = 0
        self._head[0]["beat_s"] = 0.0
        self._head[0]["is_ready"] = False
        self.note_queue(0.0, 0.0, 0.0)


class FlightLane:
    """One worker's place in it.

    Args:
        flight: The file.
        number: Of the place; -1 where there are too many workers: nothing is noted then.
    """

    def __init__(self, flight: Flight, number: int) -> None:
        self._flight, self._number = flight, number

    def begin(self, items: Sequence[Item]) -> None:
        """These run from now on."""
        if self._number >= 0:
            self._flight.write(self._number, [self._flight.digest(item) for item in items])

    def end(self) -> None:
        """They have run."""
        if self._number >= 0:
            self._flight.erase(self._number)

    def __del__(self) -> None:
        if self._number >= 0:
            self._flight.give_back(self._number)
