"""The host's own memory in a device's place: what the device backend asks for happens at once, and is written down."""

import atexit
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from nestvec.backends.cuda.backend import DeviceBackend
from nestvec.backends.cuda.buffers import Bytes
from nestvec.backends.cuda.device_thread import DeviceLine, Ledger
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
    """A device that is none.

    Attributes:
        whole: Bytes that it claims to have.
        taken: Bytes that whoever runs on it claims to use beside what is allocated here.
        threads: Names of all threads that used it, but for waiting.
        copied_out: Bytes of each copy to the host.
    """

    kind: str = "cpu"
    number: int = 0
    stream: int = 0
    whole: int = 2**34
    taken: int = 0
    threads: set[str] = field(default_factory=set)
    copied_out: list[int] = field(default_factory=list)
    copied_in: list[int] = field(default_factory=list)
    waits: int = 0
    selected: list[str] = field(default_factory=list)
    _blocks: dict[int, Bytes] = field(default_factory=dict)

    def select(self) -> None:
        """In each thread that begins work."""
        self.selected.append(threading.current_thread().name)

    def pinned(self, size: int) -> Bytes:
        """Plain memory."""
        self._note()
        return np.zeros(size, np.uint8)

    def allocate(self, size: int) -> int:
        """Memory full of a pattern: nothing that was not written may be read."""
        self._note()
        if self.allocated + size > self.whole:
            raise BackendMemoryError("no memory")
        block = np.full(size, 0xEE, np.uint8)
        self._blocks[block.ctypes.data] = block
        return block.ctypes.data

    def free(self, address: int) -> None:
        """Forget it."""
        self._note()
        del self._blocks[address]

    def copy_in(self, address: int, host: NDArray[Any]) -> None:
        """At once."""
        self._note()
        self.copied_in.append(host.nbytes)
        self._block(address)[: host.nbytes] = host.reshape(-1).view(np.uint8)

    def copy_out(self, host: Bytes, address: int, *, rows: int, width: int, pitch: int) -> None:
        """At once, row by row."""
        self._note()
        self.copied_out.append(rows * width)
        source = self._block(address)[: rows * pitch].reshape(rows, pitch)
        host.reshape(rows, width)[:] = source[:, :width]

    def record(self) -> object:
        """Nothing is under way."""
        self._note()
        return object()

    def wait(self, event: object) -> None:
        """It has happened."""
        del event
        self.waits += 1

    def memory(self) -> tuple[int, int]:
        """As claimed."""
        return self.whole - self.allocated - self.taken, self.whole

    def close(self) -> None:
        """Nothing to free."""

    @property
    def allocated(self) -> int:
        """Bytes that are allocated now."""
        return sum(len(block) for block in self._blocks.values())

    def _block(self, address: int) -> Bytes:
        return self._blocks[address]

    def _note(self) -> None:
        self.threads.add(threading.current_thread().name)


def host_line(device: HostDevice | None = None, limit: int = 2**34) -> DeviceLine:
    """A line to it."""
    return DeviceLine(device or HostDevice(), Ledger(limit))


def open_emulated(
    path: Path, options: DeviceOptions, line: DeviceLine | None = None
) -> DeviceBackend:
    """A backend over a device graph whose CUDA ops are written out for the CPU."""
    own = line or host_line()
    emulated = emulate(path)
    atexit.register(shutil.rmtree, emulated.parent, ignore_errors=True)  # exits are opened later
    return DeviceBackend(emulated, own, opener(own), options)


def open_anywhere(path: Path, layout: Layout, options: BackendOptions) -> Backend:
    """What a machine with a GPU would open, on this one."""
    if options.device is not None:
        return open_emulated(path, options.device)
    return OnnxBackend(path, layout, replace(options, provider="cpu"))


def opener(line: DeviceLine) -> Callable[..., DeviceSession]:
    """Opens graphs on the host."""

    def open_session(path: Path, *, memory_limit: int, captures: bool) -> DeviceSession:
        session: DeviceSession = OnnxDeviceSession(
            path, line.device, memory_limit=memory_limit, captures=captures
        )
        return session

    return open_session
