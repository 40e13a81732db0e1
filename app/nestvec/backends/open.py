"""The GPUs of this process: whether there are any, and the one line to each that all its models share."""

import logging
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.backends.cuda.backend import DeviceBackend
from nestvec.backends.cuda.device_thread import DeviceLine, Ledger
from nestvec.backends.cuda.runtime import CudaDevice
from nestvec.backends.cuda.session import DeviceSession
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.types import Batch, Layout, RawOutput
from nestvec.errors import (
    BackendError,
    BackendLostError,
    FormatError,
    ProviderError,
)
from nestvec.system.cuda_driver import Gpu, read_driver

log = logging.getLogger(__name__)

_lines: Final[dict[int, DeviceLine]] = {}
_lock: Final = Lock()


@lru_cache(maxsize=1)
def gpus() -> tuple[Gpu, ...]:
    """Those that the driver shows; none where there is no driver. What it says once is remembered."""
    try:
        return read_driver().gpus
    except ProviderError:
        return ()


def chosen_provider(asked: str, device_id: int) -> str:
    """Where models run.

    Args:
        asked: "auto", "cpu" or "cuda".
        device_id: The GPU that is meant.

    Returns:
        "cpu" or "cuda"; auto takes a GPU where onnxruntime can use one and the driver shows it.

    Raises:
        ProviderError: CUDA was asked for and is not to be had; never a silent fallback.
    """
    if asked == "cpu":
        return "cpu"
    if asked == "auto":
        return "cuda" if device_id < len(gpus()) and _has_gpu_build() else "cpu"
    if not _has_gpu_build():
        from nestvec.backends.ort import available_provider

        available_provider(asked)
    shown = read_driver().gpus
    if device_id >= len(shown):
        raise ProviderError(f"device_id is {device_id}, but the driver shows {len(shown)} GPUs")
    return "cuda"


def _has_gpu_build() -> bool:
    """Whether onnxruntime can use CUDA; by its package's name, since HTTP processes should not load it for that."""
    try:
        version("onnxruntime-gpu")
    except PackageNotFoundError:
        return False
    return True


def line_of(device_id: int, memory_share: float) -> DeviceLine:
    """The line to a GPU, made when it is first asked for.

    Raises:
        ProviderError: It cannot be used.
    """
    from nestvec.backends.ort import check_cuda_starts

    with _lock:
        if device_id not in _lines:
            check_cuda_starts(device_id)
            device = CudaDevice(device_id)
            free, whole = device.memory()
            # Others may use the same card.
            limit = min(int(whole * memory_share), free)
            _lines[device_id] = DeviceLine(device, Ledger(limit))
        return _lines[device_id]


def open_on_gpu(path: Path, layout: Layout, options: BackendOptions) -> Backend:
    """Open a graph on a GPU: one that was made for it, or any other as onnxruntime runs it.

    Raises:
        ModelError: It cannot be opened, or does not fit.
    """
    from nestvec.backends.cuda.onnx_session import OnnxDeviceSession
    from nestvec.backends.onnx import OnnxBackend

    line = line_of(options.device_id, options.memory_share)
    if options.device is None:
        return SerialBackend(OnnxBackend(path, layout, options), line)

    def open_session(path: Path, *, memory_limit: int, captures: bool) -> DeviceSession:
        return OnnxDeviceSession(
            path,
            line.device,
            memory_limit=memory_limit,
            captures=captures,
            optimises=layout is Layout.PADDED,
        )

    try:
        return DeviceBackend(path, line, open_session, options.device, layout)
    except (FormatError, BackendError) as error:
        if layout is Layout.PACKED or isinstance(error, BackendLostError):
            raise
        # Somebody else's graph, which may do what fixed memory does not allow.
        log.warning("%s is run by itself: %s", path.name, error.message)
        return SerialBackend(OnnxBackend(path, layout, options), line)


class SerialBackend:
    """Another backend whose runs go through the device's thread, as all do.

    Args:
        backend: Runs on the device in its own way.
        line: The device.
    """

    def __init__(self, backend: Backend, line: DeviceLine) -> None:
        self._backend, self._line = backend, line
        self.layout = backend.layout
        self.provider = backend.provider
        self.hidden_size = backend.hidden_size
        self.gives_tokens = backend.gives_tokens
        self.layers = backend.layers
        self.gives_exits = backend.gives_exits
        self.pooling = backend.pooling
        self.max_cost = backend.max_cost

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch; see `Backend`."""
        return self._backend.cost(lengths)

    def run(self, batch: Batch) -> RawOutput:
        """Run one batch.

        Raises:
            BackendError: The runtime failed.
        """
        return self._line.do(lambda: self._backend.run(batch))

    def close(self) -> None:
        """Free the session."""
        self._line.do(self._backend.close)


def open_backend(path: Path, layout: Layout, options: BackendOptions) -> Backend:
    """The one place that names backends; imported late, as `--help` has no use for them."""
    if options.provider == "cuda":
        return open_on_gpu(path, layout, options)
    if options.computes_bf16:
        from nestvec.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(path, layout, options)
    from nestvec.backends.onnx import OnnxBackend

    return OnnxBackend(path, layout, options)
