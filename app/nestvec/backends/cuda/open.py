"""Opens graphs on a GPU, over the one thread that all models of this process share for each device."""

import logging
from pathlib import Path
from threading import Lock
from typing import Final

from nestvec.backends.cuda.backend import DeviceBackend
from nestvec.backends.cuda.device_thread import DeviceThread, MemoryReservations
from nestvec.backends.cuda.runtime import CudaDevice
from nestvec.backends.cuda.serial import SerialBackend
from nestvec.backends.cuda.session import DeviceSession
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.types import Layout
from nestvec.errors import BackendError, BackendLostError, BackendMemoryError, FormatError

log = logging.getLogger(__name__)

_threads: Final[dict[int, DeviceThread]] = {}
_lock: Final = Lock()


def device_thread_for(device_id: int, memory_share: float) -> DeviceThread:
    """Return the thread of a GPU, started when it is first asked for.

    Args:
        device_id: Number of the GPU, as CUDA counts them.
        memory_share: Part of its memory that all models of this process may take together; the first call decides.

    Raises:
        ProviderError: The GPU cannot be used.
    """
    from nestvec.backends.ort import check_cuda_starts

    with _lock:
        if device_id not in _threads:
            check_cuda_starts(device_id)
            device = CudaDevice(device_id)
            free_bytes, total_bytes = device.memory()
            # Other processes may use the same card.
            limit_bytes = min(int(total_bytes * memory_share), free_bytes)
            _threads[device_id] = DeviceThread(device, MemoryReservations(limit_bytes))
        return _threads[device_id]


def open_on_gpu(path: Path, layout: Layout, options: BackendOptions) -> Backend:
    """Open a graph on a GPU: in fixed memory where it allows that, else as onnxruntime runs any graph.

    Raises:
        FormatError: The graph cannot be opened.
        ModelMemoryError: It does not fit into the GPU's memory.
        ProviderError: The GPU cannot be used.
    """
    from nestvec.backends.cuda.onnx_session import OnnxDeviceSession
    from nestvec.backends.onnx import OnnxBackend

    thread = device_thread_for(options.device_id, options.memory_share)

    def open_serial() -> Backend:
        with thread.opening:
            return SerialBackend(OnnxBackend(path, layout, options), thread)

    if options.device is None:
        return open_serial()

    def open_session(path: Path, *, memory_limit_bytes: int, captures: bool) -> DeviceSession:
        return OnnxDeviceSession(
            path,
            thread.device,
            memory_limit_bytes=memory_limit_bytes,
            captures=captures,
            is_foreign=layout is Layout.PADDED,
        )

    try:
        return DeviceBackend(path, thread, open_session, options.device, layout)
    except (FormatError, BackendError) as error:
        is_machines_fault = isinstance(error, (BackendLostError, BackendMemoryError))
        if layout is Layout.PACKED or is_machines_fault:
            raise
        # A graph that others made may do what fixed memory does not allow.
        log.warning("%s is run by itself: %s", path.name, error.message)
        return open_serial()
