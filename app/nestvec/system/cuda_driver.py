"""What NVIDIA's driver says of this machine's GPUs, without any runtime; see NVIDIA's CUDA Driver API."""

import ctypes
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from nestvec.errors import ProviderError

LIBRARY: Final = "libcuda.so.1"
NAME_BYTES: Final = 256
UUID_BYTES: Final = 16
# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
CAPABILITY_MAJOR: Final = 75
CAPABILITY_MINOR: Final = 76
# After these errors the process's context is beyond repair (CUDA Runtime API, cudaError): only a new process helps.
LOST_DEVICE_ERRORS: Final[dict[int, str]] = {
    4: "driver unloading",
    46: "device unavailable",
    100: "no device",
    101: "invalid device",
    214: "uncorrectable memory error",
    220: "NVLink error",
    700: "illegal address",
    702: "launch timeout",
    709: "context destroyed",
    710: "assertion in a kernel",
    714: "stack error",
    715: "illegal instruction",
    716: "misaligned address",
    717: "invalid address space",
    718: "invalid program counter",
    719: "launch failure",
    721: "contained memory error",
    999: "unknown error",
}


VISIBLE_DEVICES: Final = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that this process may use.

    Attributes:
        number: Its number as CUDA counts them, `CUDA_VISIBLE_DEVICES` applied.
        name: Its name, such as "NVIDIA H200".
        capability: Its compute capability, such as "9.0" for Hopper.
        memory_bytes: All of its memory.
        uuid: The name by which NVML knows it, "GPU-…".
    """

    number: int
    name: str
    capability: str
    memory_bytes: int
    uuid: str


@dataclass(frozen=True, slots=True)
class Driver:
    """NVIDIA's driver and its GPUs.

    Attributes:
        cuda: The newest version of CUDA that it can run, such as "13.0".
        gpus: The GPUs that this process may use.
    """

    cuda: str
    gpus: tuple[Gpu, ...]


def read_driver(load: Callable[[str], Any] = ctypes.CDLL) -> Driver:
    """Ask the driver for its version and its GPUs.

    Args:
        load: Loads a library by name; may raise OSError.

    Raises:
        ProviderError: There is no driver, or it does not start; the message says which.
    """
    try:
        library = load(LIBRARY)
    except OSError as error:
        raise ProviderError(f"no NVIDIA driver: {LIBRARY} cannot be loaded") from error
    _check(library.cuInit(0), "cuInit")
    number = ctypes.c_int()
    _check(library.cuDriverGetVersion(ctypes.byref(number)), "cuDriverGetVersion")
    count = ctypes.c_int()
    _check(library.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    version = f"{number.value // 1000}.{number.value % 1000 // 10}"
    return Driver(version, tuple(_gpu(library, index) for index in range(count.value)))


def show_one_gpu(environment: MutableMapping[str, str], number: int) -> bool:
    """Let CUDA show this process one GPU only, as number 0: whatever a library does on the first GPU is done there.

    Must come before anything asks the driver, which reads the variable once.

    Args:
        environment: Variables of the process.
        number: The GPU's number as CUDA counts them now.

    Returns:
        Whether it does; not where the variable names no such GPU.
    """
    visible = environment.get(VISIBLE_DEVICES)
    names = None if visible is None else visible.split(",")
    if names is not None and number >= len(names):
        return False
    environment[VISIBLE_DEVICES] = str(number) if names is None else names[number].strip()
    return True


def _gpu(library: Any, number: int) -> Gpu:  # noqa: ANN401 - a library has no type
    handle, memory = ctypes.c_int(), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(NAME_BYTES)
    uuid = ctypes.create_string_buffer(UUID_BYTES)
    _check(library.cuDeviceGet(ctypes.byref(handle), number), "cuDeviceGet")
    _check(library.cuDeviceGetName(name, NAME_BYTES, handle), "cuDeviceGetName")
    _check(library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle), "cuDeviceTotalMem")
    for value, attribute in ((major, CAPABILITY_MAJOR), (minor, CAPABILITY_MINOR)):
        status = library.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        _check(status, "cuDeviceGetAttribute")
    _check(library.cuDeviceGetUuid_v2(uuid, handle), "cuDeviceGetUuid")
    digits = uuid.raw.hex()
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return Gpu(
        number,
        name.value.decode("utf-8", "replace"),
        f"{major.value}.{minor.value}",
        memory.value,
        f"GPU-{'-'.join(parts)}",
    )


def _check(status: int, call: str) -> None:
    if status:
        raise ProviderError(f"the NVIDIA driver does not start: {call} gave CUDA error {status}")
