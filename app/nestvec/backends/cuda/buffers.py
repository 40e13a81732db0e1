"""Memory of a device as the backend uses it: addresses, page-locked host arrays, one stream, events."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

ByteArray = NDArray[np.uint8]
ALIGNMENT_BYTES: Final = 256
# A buffer that was too small is made larger than asked for.
GROWTH: Final = 1.25


class Device(Protocol):
    """A device with one stream, on which everything happens in the order in which it was asked for.

    Every method may raise `BackendMemoryError` or `BackendLostError`.
    """

    @property
    def kind(self) -> str:
        """The device's name in onnxruntime: "cuda", or "cpu" in tests."""

    @property
    def number(self) -> int:
        """The device's number among those of its kind."""

    @property
    def stream(self) -> int:
        """The stream's handle; 0 where there is none."""

    def select(self) -> None:
        """Make this the calling thread's device; comes before anything else in a thread."""

    def pinned(self, size: int) -> ByteArray:
        """Allocate so many bytes of page-locked host memory, which the device copies from and to by itself."""

    def free_dropped(self) -> None:
        """Free page-locked memory to which no array refers any more; not while a run is captured."""

    def allocate(self, size: int) -> int:
        """Allocate so many bytes of the device's memory, and return their address."""

    def free(self, address: int) -> None:
        """Free what was allocated at an address."""

    def copy_in(self, address: int, host: NDArray[Any]) -> None:
        """Begin to copy a contiguous page-locked array to the device."""

    def copy_out(self, host: ByteArray, address: int, *, rows: int, width: int, pitch: int) -> None:
        """Begin to copy the first bytes of every row from the device.

        Args:
            host: At least rows · width bytes, page-locked.
            address: Where the first row begins on the device.
            rows: Number of rows.
            width: Number of bytes of each row to copy.
            pitch: Number of bytes from one row to the next.
        """

    def record(self) -> Any:  # noqa: ANN401 - each runtime has its own kind of event
        """Record an event behind everything that was begun so far."""

    def wait(self, event: Any) -> None:  # noqa: ANN401
        """Wait for an event without holding the interpreter's lock, and free it."""

    def memory(self) -> tuple[int, int]:
        """Return the device's free bytes, and all of its bytes."""

    def close(self) -> None:
        """Free the stream."""


@dataclass(slots=True)
class DeviceBuffer:
    """Memory of the device that grows when more is asked for.

    Attributes:
        device: The device whose memory it is.
        address: Where it begins; 0 before anything was asked for.
        size: Its number of bytes.
    """

    device: Device
    address: int = 0
    size: int = 0

    def at_least(self, size: int) -> int:
        """Return its address, where there are at least so many bytes from now on."""
        if size > self.size:
            new_size = rounded_up(int(size * GROWTH) if self.size else size)
            self.release()
            self.address = self.device.allocate(new_size)
            self.size = new_size
        return self.address

    def release(self) -> None:
        """Free it; an error in doing so affects nobody any more and is dropped."""
        if self.size:
            with suppress(Exception):
                self.device.free(self.address)
        self.address = self.size = 0


@dataclass(slots=True)
class HostBuffer:
    """Page-locked host memory that grows when more is asked for.

    Attributes:
        allocate: Allocates so many page-locked bytes.
        array: The memory, uint8.
    """

    allocate: Callable[[int], ByteArray]
    array: ByteArray = field(default_factory=lambda: np.zeros(0, np.uint8))

    def view(self, size: int) -> ByteArray:
        """Return its first bytes, so many of them."""
        if size > len(self.array):
            self.array = self.allocate(rounded_up(int(size * GROWTH)))
        return self.array[:size]

    def holding(self, values: NDArray[Any]) -> ByteArray:
        """Copy an array into it, and return its bytes there."""
        flat = np.ascontiguousarray(values)
        view = self.view(flat.nbytes)
        view[:] = flat.reshape(-1).view(np.uint8)
        return view


def rounded_up(size: int) -> int:
    """Round a number of bytes up to a multiple of the alignment, at least one."""
    return max(ALIGNMENT_BYTES, -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES)
