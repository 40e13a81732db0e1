"""A CUDA device through its runtime library: memory, copies, one stream, events; see NVIDIA's CUDA Runtime API.

onnxruntime offers Python neither page-locked memory nor copies that do not wait; both are a few calls of the library
that it loads anyway. ctypes releases the interpreter's lock in every call.
"""

import contextlib
import ctypes
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.cuda.buffers import ByteArray
from nestvec.errors import BackendError, BackendLostError, BackendMemoryError, ProviderError
from nestvec.system.cuda_driver import LOST_DEVICE_ERRORS

RUNTIME_NAMES: Final = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
NON_BLOCKING: Final = 1
# cudaEventBlockingSync | cudaEventDisableTiming: threads sleep in `wait`.
BLOCKING_SYNC_WITHOUT_TIMING: Final = 3
TO_DEVICE: Final = 1
TO_HOST: Final = 2
OUT_OF_MEMORY: Final = 2


def load_runtime(load: Callable[[str], Any] = ctypes.CDLL) -> Any:  # noqa: ANN401 - a library has no type
    """Load the CUDA runtime library, which onnxruntime's `preload_dlls` has loaded from where pip put it.

    Args:
        load: Loads a library by name; may raise OSError.

    Raises:
        ProviderError: The library is not there.
    """
    for name in RUNTIME_NAMES:
        with contextlib.suppress(OSError):
            return load(name)
    raise ProviderError(
        f"none of {', '.join(RUNTIME_NAMES)} can be loaded: install nestvec[gpu], or CUDA 13's runtime"
    )


class CudaDevice:
    """The `Device` of CUDA.

    Args:
        number: Number of the GPU as CUDA counts them, `CUDA_VISIBLE_DEVICES` applied.
        library: The CUDA runtime library; loaded by default.

    Raises:
        ProviderError: The runtime or the device is not there.
    """

    kind = "cuda"

    def __init__(self, number: int = 0, library: Any = None) -> None:  # noqa: ANN401
        self.number = number
        self._library = load_runtime() if library is None else library
        # Addresses of page-locked memory that is not used any more; finalizers run in any thread at any time.
        self._dropped: deque[int] = deque()
        stream = ctypes.c_void_p()
        try:
            self.select()
            self._call(
                "cudaStreamCreateWithFlags", ctypes.byref(stream), ctypes.c_uint(NON_BLOCKING)
            )
        except BackendError as error:
            raise ProviderError(f"CUDA device {number} cannot be used: {error.message}") from error
        self.stream = stream.value or 0

    def select(self) -> None:
        """Make this the calling thread's device."""
        self._call("cudaSetDevice", ctypes.c_int(self.number))

    def pinned(self, size: int) -> ByteArray:
        """Allocate page-locked host memory, uint8, which `free_dropped` frees once no array refers to it."""
        address = ctypes.c_void_p()
        self.select()
        self._call("cudaHostAlloc", ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(0))
        block = (ctypes.c_uint8 * size).from_address(address.value or 0)
        weakref.finalize(block, self._dropped.append, address.value or 0)
        array: ByteArray = np.frombuffer(block, np.uint8)  # type: ignore[call-overload]  # a buffer, which typeshed does not know
        return array

    def free_dropped(self) -> None:
        """Free page-locked memory to which no array refers any more."""
        while self._dropped:
            self._library.cudaFreeHost(ctypes.c_void_p(self._dropped.popleft()))

    def allocate(self, size: int) -> int:
        """Allocate device memory and return its address."""
        address = ctypes.c_void_p()
        self.select()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value or 0

    def free(self, address: int) -> None:
        """Free device memory."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def copy_in(self, address: int, host: NDArray[Any]) -> None:
        """Begin to copy a contiguous page-locked array to the device."""
        self._call(
            "cudaMemcpyAsync",
            ctypes.c_void_p(address),
            ctypes.c_void_p(host.ctypes.data),
            ctypes.c_size_t(host.nbytes),
            ctypes.c_int(TO_DEVICE),
            ctypes.c_void_p(self.stream),
        )

    def copy_out(self, host: ByteArray, address: int, *, rows: int, width: int, pitch: int) -> None:
        """Begin to copy the first `width` bytes of each of `rows` rows, `pitch` bytes apart, to page-locked memory."""
        self._call(
            "cudaMemcpy2DAsync",
            ctypes.c_void_p(host.ctypes.data),
            ctypes.c_size_t(width),
            ctypes.c_void_p(address),
            ctypes.c_size_t(pitch),
            ctypes.c_size_t(width),
            ctypes.c_size_t(rows),
            ctypes.c_int(TO_HOST),
            ctypes.c_void_p(self.stream),
        )

    def record(self) -> ctypes.c_void_p:
        """Record an event behind everything that was begun so far."""
        event = ctypes.c_void_p()
        self._call(
            "cudaEventCreateWithFlags",
            ctypes.byref(event),
            ctypes.c_uint(BLOCKING_SYNC_WITHOUT_TIMING),
        )
        self._call("cudaEventRecord", event, ctypes.c_void_p(self.stream))
        return event

    def wait(self, event: ctypes.c_void_p) -> None:
        """Sleep until an event has happened, then free it; in any thread."""
        # A thread that has chosen no device is on the first one: the call would make a context there, half a GiB.
        self.select()
        try:
            self._call("cudaEventSynchronize", event)
        finally:
            self._library.cudaEventDestroy(event)

    def memory(self) -> tuple[int, int]:
        """Return the device's free bytes, and all of its bytes."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.select()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def close(self) -> None:
        """Free the stream."""
        self._library.cudaStreamDestroy(ctypes.c_void_p(self.stream))

    def _call(self, name: str, *arguments: Any) -> None:  # noqa: ANN401
        status = int(getattr(self._library, name)(*arguments))
        if status == 0:
            return
        if status in LOST_DEVICE_ERRORS:
            raise BackendLostError(
                f"the GPU is lost: {LOST_DEVICE_ERRORS[status]} (CUDA error {status})"
            )
        if status == OUT_OF_MEMORY:
            raise BackendMemoryError("the GPU has no memory for this")
        raise BackendError(f"{name} failed (CUDA error {status})")
