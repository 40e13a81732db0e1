"""The one thread that gives a device its work, and the reservations of its memory that models hold.

CUDA graphs belong to the thread that captured them, and while one is captured no other thread may call CUDA: so all
work for a device goes through one thread of the process. That thread only begins work; whoever wants results waits for
an event. Graphs are opened beside it, by whoever loads a model: that may take minutes, in which others are served.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, Lock, get_ident
from typing import Any, TypeVar

from nestvec.backends.cuda.buffers import ByteArray, Device
from nestvec.errors import ModelMemoryError

Result = TypeVar("Result")


@dataclass(slots=True)
class MemoryReservations:
    """What each model has reserved of a device's memory.

    Attributes:
        limit_bytes: What all models may take together.
    """

    limit_bytes: int
    _reserved: dict[str, int] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def free_bytes(self) -> int:
        """Bytes that nobody has reserved."""
        return self.limit_bytes - sum(self._reserved.values())

    def reserve(self, owner: str, min_bytes: int, wanted_bytes: int) -> int:
        """Reserve memory.

        Args:
            owner: Who reserves it; several reservations of one owner add up.
            min_bytes: With less the reservation would be of no use.
            wanted_bytes: What the owner would like to have.

        Returns:
            Bytes that this call has reserved, between the two.

        Raises:
            ModelMemoryError: There is less than the minimum.
        """
        with self._lock:
            if min_bytes > self.free_bytes:
                raise ModelMemoryError(
                    f"needs {min_bytes / 2**30:.1f} GiB of GPU memory at least, and {self.free_bytes / 2**30:.1f} of "
                    f"{self.limit_bytes / 2**30:.1f} GiB are left: unload models, or raise gpu_memory_utilization"
                )
            reserved = min(wanted_bytes, self.free_bytes)
            self._reserved[owner] = self._reserved.get(owner, 0) + reserved
            return reserved

    def release(self, owner: str) -> None:
        """Release all that an owner has reserved."""
        with self._lock:
            self._reserved.pop(owner, None)


class DeviceThread:
    """The thread through which this process uses a device.

    Args:
        device: The device's memory and stream.
        reservations: Who has reserved what of its memory.

    Attributes:
        opening: Held while a graph is opened, measured and captured: opening calls CUDA outside of the device's thread,
            which would break the capture of another graph, and each takes all memory that is left until it is open.
    """

    def __init__(self, device: Device, reservations: MemoryReservations) -> None:
        self.device, self.reservations = device, reservations
        self.opening = Lock()
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="nestvec-device", initializer=self._begin
        )
        self._ident = 0
        self._change = Condition()
        self._waiting = 0
        self._is_exclusive = False

    def run(self, work: Callable[[], Result]) -> Result:
        """Run a function in the device's thread, after all that was asked for before, and return its result.

        If the caller is in that thread, the function runs at once.

        Raises:
            Exception: Whatever the function raises.
        """
        if get_ident() == self._ident:
            return work()
        return self._thread.submit(self._do, work).result()

    def pinned(self, size: int) -> ByteArray:
        """Allocate page-locked memory in the device's thread: in any other it would break a capture.

        Raises:
            BackendMemoryError: There is not enough memory.
        """
        return self.run(lambda: self.device.pinned(size))

    def wait(self, event: Any) -> None:  # noqa: ANN401 - each runtime has its own kind of event
        """Wait for an event in the calling thread, once nobody has the device exclusively.

        Raises:
            BackendError: What was begun before the event has failed.
        """
        with self._change:
            self._change.wait_for(lambda: not self._is_exclusive)
            self._waiting += 1
        try:
            self.device.wait(event)
        finally:
            with self._change:
                self._waiting -= 1
                self._change.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep all other threads from calling the device; must be entered in the device's thread.

        Threads that already wait for an event are let finish first.
        """
        with self._change:
            self._is_exclusive = True
            self._change.wait_for(lambda: not self._waiting)
        try:
            yield
        finally:
            with self._change:
                self._is_exclusive = False
                self._change.notify_all()

    def close(self) -> None:
        """End the thread and free the device's stream; used by tests only."""
        self._thread.shutdown()
        self.device.close()

    def _do(self, work: Callable[[], Result]) -> Result:
        """Do a job, after freeing what finalizers dropped since the last one."""
        self.device.free_dropped()
        return work()

    def _begin(self) -> None:
        """Select the device, before the thread's first work."""
        self._ident = get_ident()
        self.device.select()
