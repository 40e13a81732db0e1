"""Memory of a device as the engine uses it: addresses, page-locked host arrays, one stream, events."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
ALIGNMENT: Final = 256
GROWTH: Final = 1.5  # buffers that were too small are made larger than asked for


class Device(Protocol):
    """One device with one stream, on which everything happens in the order in which it was asked for.

    All methods may raise `BackendMemoryError` or `BackendLostError`.
    """

    @property
    def kind(self) -> str:
        """As onnxruntime names it: "cuda", or "cpu" in tests."""

    @property
    def number(self) -> int:
        """Which one."""

    @property
    def stream(self) -> int:
        """Its handle; 0 where there is none."""

    def select(self) -> None:
        """Make it the calling thread's, before anything else there."""

    def pinned(self, size: int) -> Bytes:
        """So many bytes of the host's memory that the device copies from and to by itself."""

    def allocate(self, size: int) -> int:
        """So many bytes of the device's memory; gives their address."""

    def free(self, address: int) -> None:
        """Give them back."""

    def copy_in(self, address: int, host: NDArray[Any]) -> None:
        """Begin to copy a contiguous page-locked array to the device."""

    def copy_out(self, host: Bytes, address: int, *, rows: int, width: int, pitch: int) -> None:
        """Begin to copy the first bytes of every row from the device.

        Args:
            host: At least rows · width bytes, page-locked.
            address: Of the first row.
            rows: Number of rows.
            width: Bytes of each that are wanted.
            pitch: Bytes from one row to the next.
        """

    def record(self) -> Any:  # noqa: ANN401 - what a runtime names an event by
        """An event behind all that was begun so far."""

    def wait(self, event: Any) -> None:  # noqa: ANN401
        """Wait for an event, without the interpreter's lock, and free it."""

    def memory(self) -> tuple[int, int]:
        """Free and all bytes of the device."""

    def close(self) -> None:
        """Free the stream."""


@dataclass(slots=True)
class DeviceBuffer:
    """Memory of the device that grows when more is asked for."""

    device: Device
    address: int = 0
    size: int = 0

    def at_least(self, size: int) -> int:
        """Its address, with so many bytes behind it."""
        if size > self.size:
            wanted = rounded(int(size * GROWTH) if self.size else size)
            self.release()
            self.address = self.device.allocate(wanted)
            self.size = wanted
        return self.address

    def release(self) -> None:
        """Give it back; what goes wrong with it hurts nobody any more."""
        if self.size:
            with suppress(Exception):
                self.device.free(self.address)
        self.address = self.size = 0


@dataclass(slots=True)
class HostBuffer:
    """Page-locked memory that grows when more is asked for.

    Attributes:
        allocate: Gives so many bytes of it.
    """

    allocate: Callable[[int], Bytes]
    array: Bytes = field(default_factory=lambda: np.zeros(0, np.uint8))

    def view(self, size: int) -> Bytes:
        """So many bytes of it."""
        if size > len(self.array):
            self.array = self.allocate(rounded(int(size * GROWTH)))
        return self.array[:size]

    def holding(self, values: NDArray[Any]) -> Bytes:
        """The values, copied into it."""
        flat = np.ascontiguousarray(values)
        view = self.view(flat.nbytes)
        view[:] = flat.reshape(-1).view(np.uint8)
        return view


def rounded(size: int) -> int:
    """Up to what allocators like."""
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)
