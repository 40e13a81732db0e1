"""The one thread that gives a device its work, and the memory that its models share.

Captured graphs belong to the thread that captured them, and while one is captured nobody else may call CUDA: so all
work for a device goes through one thread of the process. It only begins work; whoever wants results waits for an
event.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import TypeVar

from app.engine.device.memory import Device
from app.errors import ModelMemoryError

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


@dataclass(slots=True)
class DeviceLine:
    """A device of this process.

    Attributes:
        device: Its memory and stream.
        ledger: Who has what of its memory.
    """

    device: Device
    ledger: Ledger
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="nestvec-device")
    )

    def do(self, work: Callable[[], Result]) -> Result:
        """Run something in the device's thread, after all that was asked for before.

        Raises:
            Exception: What the work raises.
        """
        return self._thread.submit(work).result()

    def close(self) -> None:
        """End the thread; for tests."""
        self._thread.shutdown()
        self.device.close()
