"""The one thread that gives a device its work, and the memory that its models share.

Captured graphs belong to the thread that captured them, and while one is captured nobody else may call CUDA: so all
work for a device goes through one thread of the process. It only begins work; whoever wants results waits for an
event.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, Lock, get_ident
from typing import Any, TypeVar

from nestvec.backends.cuda.buffers import Bytes, Device
from nestvec.errors import ModelMemoryError

Result = TypeVar("Result")


@dataclass(slots=True)
class Ledger:
    """What models may take of a device's memory, and who has what of it.

    Attributes:
        limit: Bytes for all of them.
    """

    limit: int
    _taken: dict[str, int] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def left(self) -> int:
        """Bytes that nobody has."""
        return self.limit - sum(self._taken.values())

    def take(self, name: str, least: int, wanted: int) -> int:
        """Reserve memory.

        Args:
            name: Of whoever wants it; more than one reservation of a name adds up.
            least: Bytes without which it is of no use.
            wanted: Bytes that it would like.

        Returns:
            Bytes that it has now, between the two.

        Raises:
            ModelMemoryError: There is less than the least.
        """
        with self._lock:
            if least > self.left:
                raise ModelMemoryError(
                    f"needs {least / 2**30:.1f} GiB of GPU memory at least, and {self.left / 2**30:.1f} of "
                    f"{self.limit / 2**30:.1f} GiB are left: unload models, or raise gpu_memory_utilization"
                )
            given = min(wanted, self.left)
            self._taken[name] = self._taken.get(name, 0) + given
            return given

    def give_back(self, name: str) -> None:
        """All that a name has."""
        with self._lock:
            self._taken.pop(name, None)


class DeviceLine:
    """A device of this process.

    Args:
        device: Its memory and stream.
        ledger: Who has what of its memory.
    """

    def __init__(self, device: Device, ledger: Ledger) -> None:
        self.device, self.ledger = device, ledger
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="nestvec-device", initializer=self._begin
        )
        self._ident = 0
        self._change = Condition()
        self._waiting = 0
        self._is_quiet = False

    def do(self, work: Callable[[], Result]) -> Result:
        """Run something in the device's thread, after all that was asked for before; right here if this is that thread.

        Raises:
            Exception: What the work raises.
        """
        if get_ident() == self._ident:
            return work()
        return self._thread.submit(work).result()

    def pinned(self, size: int) -> Bytes:
        """Page-locked memory, allocated in the device's thread: elsewhere it would break a capture.

        Raises:
            BackendMemoryError: There is none.
        """
        return self.do(lambda: self.device.pinned(size))

    def wait(self, event: Any) -> None:  # noqa: ANN401 - what a runtime names an event by
        """Wait for an event; while somebody wants quiet, for that first.

        Raises:
            BackendError: What was begun has failed.
        """
        with self._change:
            self._change.wait_for(lambda: not self._is_quiet)
            self._waiting += 1
        try:
            self.device.wait(event)
        finally:
            with self._change:
                self._waiting -= 1
                self._change.notify_all()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """No other thread calls the device meanwhile; in the device's thread. What was begun before still ends."""
        with self._change:
            self._is_quiet = True
            self._change.wait_for(lambda: not self._waiting)
        try:
            yield
        finally:
            with self._change:
                self._is_quiet = False
                self._change.notify_all()

    def close(self) -> None:
        """End the thread; for tests."""
        self._thread.shutdown()
        self.device.close()

    def _begin(self) -> None:
        """In the thread, before its first work."""
        self._ident = get_ident()
        self.device.select()
