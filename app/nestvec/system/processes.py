"""Processes of this machine, known so that another one with the same number is never taken for one of them."""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

POLL_S: Final = 0.05
KILL_TIMEOUT_S: Final = 2.0
PROC: Final = Path("/proc")
# The field of /proc/PID/stat behind the name, in clock ticks since the machine started: proc_pid_stat(5).
START_FIELD: Final = 19


@dataclass(frozen=True, slots=True)
class ProcessId:
    """What a process is known by.

    Attributes:
        pid: Its number.
        started_ticks: When it was started, in clock ticks since the machine was.
        boot: Which start of the machine, and which namespace of numbers, that is in.
    """

    pid: int
    started_ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Return what a process is known by; None where it is gone, or the system does not tell."""
        try:
            # The name, in brackets, may hold anything.
            fields = (
                (PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
            )
            # A zombie has ended: only its parent still has to learn of it.
            if fields[0] in ("Z", "X"):
                return None
            return cls(pid, int(fields[START_FIELD]), _boot())
        except (OSError, ValueError, IndexError):
            return None

    def is_alive(self) -> bool:
        """Whether the very process still runs."""
        return ProcessId.of(self.pid) == self

    def kill(self) -> bool:
        """Send it SIGKILL, and to no other process; False where it is gone."""
        with suppress(OSError):
            descriptor = os.pidfd_open(self.pid)
            try:
                # What is open now stays the same process, whatever becomes of its number.
                if self.is_alive():
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    return True
            finally:
                os.close(descriptor)
        return False

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Self:
        """Return what `as_json` has written.

        Raises:
            KeyError: A field is missing.
            ValueError: A field is no number.
        """
        return cls(int(row["pid"]), int(row["started_ticks"]), str(row["boot"]))


def end_processes(processes: Iterable[ProcessId], timeout_s: float) -> int:
    """Wait for processes that end by themselves, and kill those that do not.

    Args:
        processes: The processes.
        timeout_s: How long they may take.

    Returns:
        How many were killed.
    """
    left = _left_after(list(processes), timeout_s)
    killed = sum(process.kill() for process in left)
    _left_after(left, KILL_TIMEOUT_S)
    return killed


def _left_after(processes: list[ProcessId], timeout_s: float) -> list[ProcessId]:
    """Wait until processes have ended, and return those that have not in time."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        processes = [process for process in processes if process.is_alive()]
        if not processes or time.monotonic() >= deadline_s:
            return processes
        time.sleep(POLL_S)


def _boot() -> str:
    """Return the id of this start of the machine, and of this process's namespace of numbers."""
    boot_id = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot_id} {(PROC / 'self/ns/pid').readlink()}"
