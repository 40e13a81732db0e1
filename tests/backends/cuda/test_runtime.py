"""Calls of the CUDA driver, runtime and management libraries, against libraries that only record them."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.backends.cuda.buffers import DeviceBuffer, HostBuffer
from nestvec.backends.cuda.runtime import CudaDevice, load_runtime
from nestvec.backends.ort import backend_error, opening_error
from nestvec.errors import (
    BackendError,
    BackendLostError,
    BackendMemoryError,
    FormatError,
    ModelMemoryError,
    ProviderError,
)
from nestvec.processes.gpu_monitor import GpuMonitor
from nestvec.system.cuda_driver import (
    LOST_DEVICE_ERRORS,
    VISIBLE_DEVICES,
    read_driver,
    show_one_gpu,
)
from nestvec.system.nvml import GpuState, Nvml
from typing_extensions import override


@dataclass
class FakeLibrary:
    """A C library whose calls succeed, or return a status that the test chooses.

    Attributes:
        statuses: The status that a call returns, by its name; 0 by default.
        calls: Names of all calls, in order.
        blocks: Memory that was allocated, kept alive.
    """

    statuses: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    blocks: list[Any] = field(default_factory=list)

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            status = self.statuses.get(name, 0)
            if not status:
                self._answer(name, arguments)
            return status

        return call

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in ("cudaMalloc", "cudaHostAlloc"):
            block = ctypes.create_string_buffer(arguments[1].value)
            self.blocks.append(block)
            arguments[0]._obj.value = ctypes.addressof(block)
        elif name == "cudaMemcpyAsync":
            ctypes.memmove(arguments[0], arguments[1], arguments[2].value)
        elif name == "cudaMemGetInfo":
            arguments[0]._obj.value, arguments[1]._obj.value = 30, 80
        elif name == "cuDriverGetVersion":
            arguments[0]._obj.value = 13020
        elif name == "cuDeviceGetCount":
            arguments[0]._obj.value = 2
        elif name == "cuDeviceGetName":
            arguments[0].value = b"NVIDIA H200"
        elif name == "cuDeviceTotalMem_v2":
            arguments[0]._obj.value = 139 * 2**30
        elif name == "cuDeviceGetAttribute":
            arguments[0]._obj.value = {75: 9, 76: 0}[arguments[1]]
        elif name == "cuDeviceGetUuid_v2":
            arguments[0].raw = bytes(range(16))


def test_the_driver_tells_of_each_card() -> None:
    """Each card comes with the UUID by which the management library knows it."""
    driver = read_driver(lambda _: FakeLibrary())
    assert driver.cuda == "13.2"
    assert [card.number for card in driver.gpus] == [0, 1]
    card = driver.gpus[0]
    assert (card.name, card.capability) == ("NVIDIA H200", "9.0")
    assert card.uuid == "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"


def test_no_driver_and_one_that_does_not_start_are_told_apart() -> None:
    """Both raise a ProviderError, and thus are reasons to run on the CPU."""

    def missing(name: str) -> Any:
        raise OSError(name)

    with pytest.raises(ProviderError, match="no NVIDIA driver"):
        read_driver(missing)
    with pytest.raises(ProviderError, match="cuInit gave CUDA error 100"):
        read_driver(lambda _: FakeLibrary({"cuInit": 100}))
    with pytest.raises(ProviderError, match=r"libcudart\.so\.13"):
        load_runtime(missing)


@pytest.mark.parametrize(
    ("visible", "number", "shown"),
    [
        (None, 2, "2"),
        ("4,5,6", 1, "5"),
        ("GPU-a, MIG-b", 1, "MIG-b"),
        ("4", 1, "4"),
        ("", 1, ""),
    ],
)
def test_an_engine_sees_its_own_card_only(visible: str | None, number: int, shown: str) -> None:
    """It is one of those that the whole server may use, numbers or names; a card that is not there changes nothing."""
    environment = {} if visible is None else {VISIBLE_DEVICES: visible}
    done = show_one_gpu(environment, number)
    assert environment[VISIBLE_DEVICES] == shown
    assert done is (shown != visible)


def test_memory_is_allocated_copied_and_freed() -> None:
    """Buffers grow as needed, and page-locked memory is freed after the last array over it, when that is safe."""
    library = FakeLibrary()
    device = CudaDevice(0, library)
    buffer = DeviceBuffer(device)
    first = buffer.at_least(100)
    assert buffer.at_least(50) == first
    assert buffer.at_least(10_000) != first
    assert library.calls.count("cudaMalloc") == 2
    assert library.calls.count("cudaFree") == 1
    host = HostBuffer(device.pinned)
    view = host.holding(np.arange(4, dtype=np.int64))
    device.copy_in(buffer.address, view)
    assert ctypes.string_at(buffer.address, 32) == np.arange(4, dtype=np.int64).tobytes()
    assert device.memory() == (30, 80)
    device.wait(device.record())
    waited = ["cudaEventRecord", "cudaSetDevice", "cudaEventSynchronize", "cudaEventDestroy"]
    assert library.calls[-4:] == waited, (
        "a thread without a device would make a context on the first"
    )
    device.free_dropped()
    assert library.calls[-4:] == waited, "an array still refers to it"
    del host, view
    assert library.calls[-4:] == waited, (
        "another thread may be in a capture, which the call would break"
    )
    device.free_dropped()
    assert library.calls[-1] == "cudaFreeHost"
    buffer.release()
    device.close()


def test_cuda_errors_are_short_memory_a_lost_device_or_a_fault() -> None:
    """The core splits the batch, gives the process up, or fails the item accordingly."""
    for status, kind in ((2, BackendMemoryError), (700, BackendLostError), (1, BackendError)):
        device = CudaDevice(0, FakeLibrary({"cudaMalloc": status}))
        with pytest.raises(BackendError) as caught:
            device.allocate(10)
        assert type(caught.value) is kind
    with pytest.raises(ProviderError, match="device 7 cannot be used"):
        CudaDevice(7, FakeLibrary({"cudaSetDevice": 101}))


def test_errors_of_onnxruntime_are_understood() -> None:
    """They are told apart by the words of onnxruntime 1.31.1, none of which are passed on, as they may quote values."""
    text = "CUDA failure {}: an illegal memory access was encountered ; GPU=0 ; hostname=secret"
    lost = backend_error(RuntimeError(text.format(700)))
    assert type(lost) is BackendLostError
    assert "secret" not in lost.message
    assert type(backend_error(RuntimeError(text.format(2)))) is BackendError
    for words in (
        "Failed to allocate memory",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
        "CUBLAS failure 1: CUBLAS_STATUS_NOT_INITIALIZED",
    ):
        assert type(backend_error(RuntimeError(words))) is BackendMemoryError
        assert type(opening_error(Path("g"), RuntimeError(words))) is ModelMemoryError
    assert type(opening_error(Path("g"), RuntimeError(text.format(700)))) is BackendLostError
    for words in ("CUBLAS failure 13", "no such op"):
        assert type(opening_error(Path("g"), RuntimeError(words))) is FormatError
    assert all(status > 0 for status in LOST_DEVICE_ERRORS)


class FakePynvml:
    """The management library with one card, which can fall silent and does not tell its power."""

    class NVMLError(Exception):
        """The library's own error."""

    NVML_TEMPERATURE_GPU = 0
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0

    def __init__(self) -> None:
        self.is_silent = False

    def nvmlInit(self) -> None:  # noqa: N802 - the library's names
        """Begin to use the library."""

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        """Return the driver's version."""
        return "580.1"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        """Return the card's handle, or fail if it is silent."""
        if self.is_silent:
            raise self.NVMLError("GPU is lost")
        return uuid

    def nvmlDeviceGetMemoryInfo(self, _: str) -> Any:  # noqa: N802
        """Return the card's memory in bytes."""

        class Memory:
            used = 5
            total = 9

        return Memory()

    def nvmlDeviceGetUtilizationRates(self, _: str) -> Any:  # noqa: N802
        """Return how busy the card is, in per cent."""

        class Rates:
            gpu = 50

        return Rates()

    def nvmlDeviceGetTemperature(self, _: str, __: int) -> int:  # noqa: N802
        """Return the temperature in degrees Celsius."""
        return 60

    def nvmlDeviceGetTotalEnergyConsumption(self, _: str) -> int:  # noqa: N802
        """Return the millijoules since the driver started."""
        return 7_500

    def nvmlDeviceGetPowerUsage(self, _: str) -> int:  # noqa: N802
        """Fail, as a card does that does not tell its power."""
        raise self.NVMLError("not supported")

    def nvmlDeviceGetTotalEccErrors(self, *_: object) -> int:  # noqa: N802
        """Return that there were no errors."""
        return 0


def test_a_part_of_a_card_is_asked_for_by_its_own_name() -> None:
    """The driver gives the UUID of a MIG device without saying so; NVML knows it as MIG-…, and not how busy it is."""

    class Parted(FakePynvml):
        @override
        def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
            """Know the part only."""
            if uuid != "MIG-1":
                raise self.NVMLError("not found")
            return uuid

        @override
        def nvmlDeviceGetUtilizationRates(self, _: str) -> Any:
            """Fail, as it does for parts of cards."""
            raise self.NVMLError("not supported")

    assert Nvml(Parted()).state("GPU-1") == GpuState(None, 5, 9, 60.0, None, 0, 7.5)
    with pytest.raises(ProviderError, match="not found"):
        Nvml(Parted()).state("GPU-2")


def test_a_card_tells_how_it_is_and_that_it_fell_silent() -> None:
    """The metrics hear of both each time, the log only when it changes."""
    library = FakePynvml()
    nvml = Nvml(library)
    assert nvml.state("GPU-0") == GpuState(0.5, 5, 9, 60.0, None, 0, 7.5)

    class SeenStates:
        def __init__(self) -> None:
            self.states: list[GpuState | None] = []

        def gpu_answered(self, number: int, state: GpuState) -> None:
            """Keep the state."""
            assert number == 3
            self.states.append(state)

        def gpu_silent(self, number: int) -> None:
            """Keep that there was no answer."""
            assert number == 3
            self.states.append(None)

    metrics = SeenStates()
    watch = GpuMonitor(3, lambda: nvml.state("GPU-0"), metrics)
    watch.check()
    library.is_silent = True
    watch.check()
    library.is_silent = False
    watch.check()
    assert [state is None for state in metrics.states] == [False, True, False]
