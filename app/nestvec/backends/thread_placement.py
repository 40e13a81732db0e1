"""Keeps threads that help inside a run off the core of the thread that began it.

On one core each would keep the other from what both wait for, until the kernel moves one of them: some 7 ms here. It
puts them there where it need not: in a virtual machine a core that has been idle for a moment looks taken, as the host
has put its virtual processor to sleep (`vcpu_is_preempted` in `available_idle_cpu`), and a thread that is woken is then
put beside the thread that woke it.
"""

import ctypes
import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")
TASKS: Final = Path("/proc/self/task")
UNKNOWN: Final = -1
_numbers = itertools.count()


def begun_threads(begin: Callable[[], T], name: str) -> tuple[T, tuple[int, ...]]:
    """Call a function, and return what it returns with the ids of the threads that it has begun and left running.

    A new thread has the name of the one that begins it (prctl(2), PR_SET_NAME), so they are known whatever else begins
    threads meanwhile. Where the system keeps no such names no ids are returned.

    Args:
        begin: What begins threads, in the thread that calls this.
        name: What the threads are called from then on, with a number; seven letters at most.
    """
    own = TASKS / str(threading.get_native_id()) / "comm"
    unique = f"{name}-{next(_numbers) % 10**7}"
    try:
        before = own.read_text().rstrip("\n")
        own.write_text(unique)
    except OSError:
        return begin(), ()
    try:
        result = begin()
    finally:
        own.write_text(before)
    return result, tuple(
        sorted(int(task.name) for task in TASKS.iterdir() if _name(task) == unique)
    )


def _name(task: Path) -> str:
    try:
        return (task / "comm").read_text().rstrip("\n")
    except OSError:  # it has ended meanwhile
        return ""


def _core_of_caller() -> Callable[[], int]:
    """Return what tells the core that the calling thread is on: sched_getcpu(3), for which no system call is made."""
    try:
        found: Callable[[], int] = ctypes.PyDLL(None).sched_getcpu
    except (OSError, AttributeError, TypeError):  # another system than Linux
        return lambda: UNKNOWN
    return found


current_core: Final = _core_of_caller()


@dataclass(slots=True)
class ThreadPlacement:
    """Where threads may run that help another.

    Attributes:
        threads: Their ids; none where they are not known, and then nothing is done.
    """

    threads: tuple[int, ...] = ()
    _left_free: int = UNKNOWN

    def keep_apart(self) -> None:
        """Let the threads run on every core that this process may use but the one that the calling thread is on.

        Where that leaves none, or is not allowed, they stay where they are.
        """
        if not self.threads or (core := current_core()) == self._left_free:
            return
        self._left_free = core
        try:
            others = os.sched_getaffinity(0) - {core}
            self.threads = tuple(
                each for each in self.threads if not others or _moved(each, others)
            )
        except OSError:
            self.threads = ()


def _moved(thread: int, cores: set[int]) -> bool:
    """Let a thread run on some cores only; return whether it still is.

    Raises:
        OSError: It may not be moved.
    """
    try:
        os.sched_setaffinity(thread, cores)
    except ProcessLookupError:
        return False
    return True
