"""A process that its supervisor starts again whenever it has ended, and kills where it hangs."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Final, NamedTuple

from nestvec.ipc.status_page import StatusPage

BACKOFF_S: Final = (0.0, 0.1, 0.5, 2.0, 5.0, 15.0)
# A process that lived so long, or served, is started again at once.
STABLE_AFTER_S: Final = 5.0
# A supervisor that looks less often than this was held up itself.
HELD_UP_S: Final = 1.0
# Processes that waited for one that hangs run again within this, once it is gone.
NEIGHBOUR_S: Final = 1.0
# Exit status of an engine process that cannot serve its model.
MODEL_FAILED: Final = 3


class Restarts(NamedTuple):
    """What a new process is told of those of its role before it.

    Attributes:
        earlier: How many there were.
        was_hung: Whether the last one was killed because it hung.
    """

    earlier: int = 0
    was_hung: bool = False


FIRST: Final = Restarts()


@dataclass(slots=True)
class HangDetector:
    """Tells whether a process hangs, from what it notes of itself.

    Attributes:
        status_page: Where the process notes it.
        timeout_s: How long a process that is ready may be silent.
        loading_timeout_s: How long one may be silent before it is ready.
    """

    status_page: StatusPage
    timeout_s: float
    loading_timeout_s: float
    _last_check_s: float = 0.0
    _heard_s: float = 0.0

    def trouble(self, now_s: float, started_s: float) -> str | None:
        """What is wrong, "silent" or "overdue"; None where nothing is.

        Args:
            now_s: Monotonic time.
            started_s: When the process was started, monotonic time.
        """
        beat = self.status_page.heartbeat()
        if self.silent_s(now_s, started_s) > self._allowed_s():
            return "silent"
        return "overdue" if beat.overdue_s > 0 else None

    def silent_s(self, now_s: float, started_s: float) -> float:
        """For how long the process has not been heard.

        Args:
            now_s: Monotonic time.
            started_s: When the process was started, monotonic time.
        """
        # Where we were held up ourselves (a paused container), the process was too: it gets its time again.
        if now_s - self._last_check_s > HELD_UP_S:
            self._heard_s = now_s
        self._last_check_s = now_s
        return now_s - max(self.status_page.heartbeat().beat_s, started_s, self._heard_s)

    def grant(self, now_s: float) -> None:
        """Give the process a moment more: what it may have waited for has just gone."""
        self._heard_s = max(self._heard_s, now_s - self._allowed_s() + NEIGHBOUR_S)

    def _allowed_s(self) -> float:
        is_ready = self.status_page.heartbeat().is_ready
        return self.timeout_s if is_ready else self.loading_timeout_s


@dataclass(slots=True)
class Child:
    """A process that is started again whenever it has ended.

    Attributes:
        role: Its role, in metrics and logs.
        make: Makes the next process, given what became of those before it.
        hang_detector: Tells whether it hangs.
        process: The running process; None where it has to be started.
        starts: How many processes were started.
        started_s: When the last one was started, monotonic time.
        next_s: When the next one may be started, monotonic time.
        failures: How many ended early in a row.
        was_hung: Whether the last one was killed because it hung.
        was_ready: Whether any has been ready.
    """

    role: str
    make: Callable[[Restarts], BaseProcess]
    hang_detector: HangDetector
    process: BaseProcess | None = None
    starts: int = 0
    started_s: float = 0.0
    next_s: float = 0.0
    failures: int = 0
    was_hung: bool = False
    was_ready: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.is_alive()

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, and nobody has taken note of it."""
        return self.process is not None and not self.process.is_alive()

    def start(self, now_s: float) -> None:
        """Start a new process."""
        # What the last one noted is not the new one's.
        self.hang_detector.status_page.reset()
        self.process = self.make(Restarts(self.starts, self.was_hung))
        self.process.start()
        self.was_hung = False
        self.starts += 1
        self.started_s = now_s

    def note_end(self, now_s: float) -> int | None:
        """Take note that the process has ended, and decide when the next may start.

        Args:
            now_s: Monotonic time.

        Returns:
            The exit status.
        """
        process, self.process = self.process, None
        status = None if process is None else process.exitcode
        if process is not None:
            process.close()
        # What ended one that was ready was not its start.
        has_served = self.hang_detector.status_page.heartbeat().is_ready
        is_stable = has_served or now_s - self.started_s >= STABLE_AFTER_S
        self.failures = 0 if is_stable else self.failures + 1
        self.next_s = now_s + BACKOFF_S[min(self.failures, len(BACKOFF_S) - 1)]
        return status

    def trouble(self, now_s: float) -> str | None:
        """What is wrong with the running process, "silent" or "overdue"; None where nothing is, or it is killed."""
        self.was_ready = self.was_ready or self.hang_detector.status_page.heartbeat().is_ready
        trouble = self.hang_detector.trouble(now_s, self.started_s)
        return None if self.was_hung else trouble

    def silent_s(self, now_s: float) -> float:
        """For how long the running process has not been heard."""
        return self.hang_detector.silent_s(now_s, self.started_s)

    def kill_hung(self) -> None:
        """Kill the process, as it hangs."""
        self.was_hung = True
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it runs."""
        if self.process is not None and self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)
