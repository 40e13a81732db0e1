"""The host's own memory in a device's place: what the device backend asks for happens at once, and is recorded."""

import atexit
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from nestvec.backends.cuda.backend import DeviceBackend
from nestvec.backends.cuda.buffers import ByteArray
from nestvec.backends.cuda.device_thread import DeviceThread, MemoryReservations
from nestvec.backends.cuda.onnx_session import OnnxDeviceSession
from nestvec.backends.cuda.session import DeviceSession
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import Backend, BackendOptions, DeviceOptions
from nestvec.engine.types import Layout
from nestvec.errors import BackendMemoryError
from numpy.typing import NDArray

from tests.backends.cuda.emulation import emulate


@dataclass
class HostDevice:
    """Stands for a device by the host's memory, and records how it is used.

    Attributes:
        total: Bytes that it claims to have.
        taken: Bytes that whoever runs on it claims to use beside what is allocated here.
        threads: Names of all threads that used it, except those that waited only.
        copied_out: Bytes of each copy to the host.
        copied_in: Bytes of each copy to the device.
        waits: How often an event was waited for.
        selected: Name of each thread that selected it, in order.
    """

    kind: str = "cpu"
    number: int = 0
    stream: int = 0
    total: int = 2**34
    taken: int = 0
    threads: set[str] = field(default_factory=set)
    copied_out: list[int] = field(default_factory=list)
    copied_in: list[int] = field(default_factory=list)
    waits: int = 0
    selected: list[str] = field(default_factory=list)
    _blocks: dict[int, ByteArray] = field(default_factory=dict)

    def select(self) -> None:
        """Record the thread that selects it."""
        self.selected.append(threading.current_thread().name)

    def pinned(self, size: int) -> ByteArray:
        """Allocate plain memory."""
        self._record_thread()
        return np.zeros(size, np.uint8)

    def free_dropped(self) -> None:
        """Free nothing: numpy does."""

    def allocate(self, size: int) -> int:
        """Allocate memory full of a pattern, so that reading what was never written shows."""
        self._record_thread()
        if self.allocated + size > self.total:
            raise BackendMemoryError("no memory")
        block = np.full(size, 0xEE, np.uint8)
        self._blocks[block.ctypes.data] = block
        return block.ctypes.data

    def free(self, address: int) -> None:
        """Forget a block."""
        self._record_thread()
        del self._blocks[address]

    def copy_in(self, address: int, host: NDArray[Any]) -> None:
        """Copy at once."""
        self._record_thread()
        self.copied_in.append(host.nbytes)
        self._block(address)[: host.nbytes] = host.reshape(-1).view(np.uint8)

    def copy_out(self, host: ByteArray, address: int, *, rows: int, width: int, pitch: int) -> None:
        """Copy at once, row by row."""
        self._record_thread()
        self.copied_out.append(rows * width)
        source = self._block(address)[: rows * pitch].reshape(rows, pitch)
        host.reshape(rows, width)[:] = source[:, :width]

    def record(self) -> object:
        """Return an event that has happened: nothing is ever in flight."""
        self._record_thread()
        return object()

    def wait(self, event: object) -> None:
        """Count the wait; the event has happened."""
        del event
        self.waits += 1

    def memory(self) -> tuple[int, int]:
        """Return the free and all bytes that it claims to have."""
        return self.total - self.allocated - self.taken, self.total

    def close(self) -> None:
        """Free nothing: there is no stream."""

    @property
    def allocated(self) -> int:
        """Number of bytes that are allocated now."""
        return sum(len(block) for block in self._blocks.values())

    def _block(self, address: int) -> ByteArray:
        return self._blocks[address]

    def _record_thread(self) -> None:
        self.threads.add(threading.current_thread().name)


def host_thread(device: HostDevice | None = None, limit_bytes: int = 2**34) -> DeviceThread:
    """Return a thread of a host device, with so many bytes to reserve."""
    return DeviceThread(device or HostDevice(), MemoryReservations(limit_bytes))


def open_emulated(
    path: Path, options: DeviceOptions, thread: DeviceThread | None = None
) -> DeviceBackend:
    """Open a device graph whose CUDA ops are written out for the CPU."""
    thread = thread or host_thread()
    emulated = emulate(path)
    # The folder stays to the end, as the graphs of exits are opened later.
    atexit.register(shutil.rmtree, emulated.parent, ignore_errors=True)
    return DeviceBackend(emulated, thread, opener(thread), options)


def open_anywhere(path: Path, layout: Layout, options: BackendOptions) -> Backend:
    """Open on this machine what a machine with a GPU would open."""
    if options.device is not None:
        return open_emulated(path, options.device)
    return OnnxBackend(path, layout, replace(options, provider="cpu"))


def opener(thread: DeviceThread) -> Callable[..., DeviceSession]:
    """Return a function that opens graphs on the thread's device."""

    def open_session(path: Path, *, memory_limit_bytes: int, captures: bool) -> DeviceSession:
        session: DeviceSession = OnnxDeviceSession(
            path, thread.device, memory_limit_bytes=memory_limit_bytes, captures=captures
        )
        return session

    return open_session
