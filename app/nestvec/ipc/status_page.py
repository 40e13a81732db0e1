"""What a process says of itself: its heartbeat, and, if it is an engine process, how full its queue is."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nestvec.ipc.shared_file import STATUS, map_file


class Heartbeat(NamedTuple):
    """What the last heartbeat said.

    Attributes:
        beat_s: Monotonic time of it; 0 where there was none.
        is_ready: Whether the first model is loaded; of an HTTP process, whether it can answer.
        overdue_s: By how much a batch is over the time that it may take.
    """

    beat_s: float
    is_ready: bool
    overdue_s: float


class QueueLoad(NamedTuple):
    """How full the queue was when the engine process last noted it.

    Attributes:
        waiting_tokens: Number of tokens that wait.
        token_s: Seconds that each of them takes.
        max_tokens: Number of tokens that may wait; 0 where it is not known.
    """

    waiting_tokens: float
    token_s: float
    max_tokens: float


class StatusPage:
    """The page in the shared file; written by its process, read by the supervisor, and an engine's by HTTP processes.

    Args:
        path: The shared file.
    """

    def __init__(self, path: Path) -> None:
        self._page: NDArray[np.void] = np.frombuffer(map_file(path), STATUS, 1)

    def beat(self, now_s: float, *, is_ready: bool, overdue_s: float = 0.0) -> None:
        """Note that the process is alive.

        Args:
            now_s: Monotonic time.
            is_ready: Whether its first model is loaded; of an HTTP process, whether it can answer.
            overdue_s: By how much a batch is over the time that it may take.
        """
        page = self._page[0]
        page["is_ready"], page["overdue_s"], page["beat_s"] = is_ready, overdue_s, now_s

    def heartbeat(self) -> Heartbeat:
        """Return what the last heartbeat said."""
        page = self._page[0]
        return Heartbeat(float(page["beat_s"]), bool(page["is_ready"]), float(page["overdue_s"]))

    def note_queue(self, waiting_tokens: float, token_s: float, max_tokens: float) -> None:
        """Note how full the queue is, for HTTP processes that would rather know before they tokenize."""
        page = self._page[0]
        page["waiting_tokens"], page["token_s"] = waiting_tokens, token_s
        page["max_tokens"] = max_tokens

    def queue_load(self) -> QueueLoad:
        """Return how full the queue was when that was noted last."""
        page = self._page[0]
        return QueueLoad(
            float(page["waiting_tokens"]), float(page["token_s"]), float(page["max_tokens"])
        )

    def reset(self) -> None:
        """Say that a new process begins: no heartbeat yet, not ready, an empty queue."""
        page = self._page[0]
        page["beat_s"], page["is_ready"], page["overdue_s"] = 0.0, False, 0.0
        self.note_queue(0.0, 0.0, 0.0)
