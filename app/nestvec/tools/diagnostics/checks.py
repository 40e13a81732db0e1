"""What `nestvec doctor` looks at: each check says how it is, and what to do where it is not well."""

import ctypes
import os
import platform
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from nestvec import __version__
from nestvec.errors import ProviderError
from nestvec.system.cpus import cpu_model, usable_cpus
from nestvec.system.cuda_driver import Driver, read_driver
from nestvec.system.nvml import GpuState, Nvml

GIB: Final = 2**30
LEAST_FILES: Final = 4096
LEAST_DISK_BYTES: Final = 2 * GIB
# Native code of the onnxruntime-gpu wheel, 1.31.1; it has none that a driver could compile for others.
KERNELS: Final = ("7.5", "8.0", "8.6", "8.9", "9.0", "12.0")
LEAST_CUDA: Final = 13
RUNTIMES: Final = ("onnxruntime", "onnxruntime-gpu", "openvino")
CUDA_LIBRARIES: Final = (
    "libcudart.so.13",
    "libcublasLt.so.13",
    "libcublas.so.13",
    "libcurand.so.10",
)
CUDNN: Final = "libcudnn.so.9"
SHOWN: Final = ("tokenizers", "fastapi", "uvicorn", "numpy")


class Health(StrEnum):
    """How a check went."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        says: What was found.
        advice: What to do; "" where all is well.
    """

    name: str
    health: Health
    says: str
    advice: str = ""


def installed(package: str) -> str | None:
    """Its version; None where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def load_cuda(load: Callable[[str], object] = ctypes.CDLL) -> str:
    """Load what onnxruntime's CUDA provider needs, from where pip put it or the system has it.

    Args:
        load: Loads a library; may raise OSError.

    Returns:
        Whether cuDNN, which it can do without, is there too.

    Raises:
        ProviderError: Names what is missing.
    """
    from nestvec.backends.ort import find_libraries

    find_libraries()
    missing = []
    for name in (*CUDA_LIBRARIES, CUDNN):
        try:
            load(name)
        except OSError:
            missing.append(name)
    if set(missing) - {CUDNN}:
        raise ProviderError(f"cannot be loaded: {', '.join(missing)}")
    return f"all there; cuDNN {'absent (not needed)' if missing else 'there'}"


def software(find: Callable[[str], str | None] = installed) -> Iterator[Check]:
    """Versions, and runtimes that are in each other's way."""
    python = platform.python_version()
    yield Check("nestvec", Health.OK, f"{__version__}, Python {python}, {platform.platform()}")
    runtimes = {name: found for name in RUNTIMES if (found := find(name))}
    shown = ", ".join(f"{name} {found}" for name, found in runtimes.items())
    if not {"onnxruntime", "onnxruntime-gpu"} & set(runtimes):
        advice = "install nestvec[cpu] or nestvec[gpu]"
        yield Check("runtime", Health.FAILED, "onnxruntime is not installed", advice)
    elif {"onnxruntime", "onnxruntime-gpu"} <= set(runtimes):
        advice = "they overwrite each other's files: uninstall both, then install nestvec[gpu]"
        yield Check("runtime", Health.FAILED, shown, advice)
    else:
        yield Check("runtime", Health.OK, shown)
    yield Check("packages", Health.OK, ", ".join(f"{name} {find(name)}" for name in SHOWN))


def machine() -> Iterator[Check]:
    """Processor, memory, open files."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    yield Check(
        "cpu", Health.OK, f"{cpu_model()}; {usable_cpus()} usable; {memory:.1f} GiB of memory"
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    says = f"{soft} open files allowed (at most {hard})"
    if soft < LEAST_FILES:
        advice = f"raise it, such as by `ulimit -n {min(hard, 65536)}`: each connection takes one"
        yield Check("open files", Health.WARNING, says, advice)
    else:
        yield Check("open files", Health.OK, says)


def folder(name: str, path: Path) -> Check:
    """A folder that is written to: there or possible, writable, with room."""
    there = next((one for one in (path, *path.parents) if one.exists()), Path("/"))
    if not there.is_dir() or not os.access(there, os.W_OK):
        says = f"{path} cannot be written by this user"
        return Check(name, Health.FAILED, says, f"change its owner, or set {name}")
    free = shutil.disk_usage(there).free
    says = f"{path}, {free / GIB:.1f} GiB free"
    if free < LEAST_DISK_BYTES:
        return Check(name, Health.WARNING, says, "models of a gigabyte and more will not fit")
    return Check(name, Health.OK, says)


def gpu(
    device_id: int,
    *,
    is_asked_for: bool,
    read: Callable[[], Driver] = read_driver,
    load: Callable[[], str] = load_cuda,
    nvml: Callable[[], Nvml] = Nvml,
    find: Callable[[str], str | None] = installed,
) -> Iterator[Check]:
    """Driver, card, libraries.

    Args:
        device_id: Which card.
        is_asked_for: Whether its absence is an error.
        read: Asks the driver.
        load: Loads CUDA's libraries, and says of cuDNN.
        nvml: Begins the management library.
        find: Gives a package's version.
    """
    absent = Health.FAILED if is_asked_for else Health.OK
    try:
        driver = read()
    except ProviderError as error:
        advice = (
            "install NVIDIA's driver; in a container, start it with the GPU (compose profile gpu)"
        )
        yield Check("gpu driver", absent, error.message, advice if is_asked_for else "")
        return
    is_old = int(driver.cuda.split(".")[0]) < LEAST_CUDA
    yield Check(
        "gpu driver",
        Health.FAILED if is_old else Health.OK,
        f"runs CUDA up to {driver.cuda}; {len(driver.gpus)} GPUs",
        f"onnxruntime-gpu needs a driver for CUDA {LEAST_CUDA}: update it" if is_old else "",
    )
    if find("onnxruntime-gpu") is None:
        says = "there is a GPU, but this onnxruntime is for CPUs"
        health = Health.FAILED if is_asked_for else Health.WARNING
        yield Check("gpu runtime", health, says, "install nestvec[gpu] instead of nestvec[cpu]")
        return
    if device_id >= len(driver.gpus):
        yield Check("gpu", absent, f"there is no GPU {device_id}", "set device_id")
        return
    card = driver.gpus[device_id]
    has_kernels = card.capability in KERNELS
    says = (
        f"{device_id}: {card.name}, capability {card.capability}, {card.memory_bytes / GIB:.0f} GiB"
    )
    advice = f"the onnxruntime-gpu wheel has kernels for {', '.join(KERNELS)} only"
    yield Check(
        "gpu", Health.OK if has_kernels else Health.FAILED, says, "" if has_kernels else advice
    )
    try:
        yield Check("cuda libraries", Health.OK, load())
    except ProviderError as error:
        yield Check("cuda libraries", Health.FAILED, error.message, "install nestvec[gpu] with pip")
    try:
        library = nvml()
        state = library.state(card.uuid)
        yield _state(state, library.driver)
        library.close()
    except ProviderError as error:
        advice = "metrics of the GPU are off; serving works without them"
        yield Check("gpu state", Health.WARNING, error.message, advice)


def _state(state: GpuState, driver: str) -> Check:
    used, whole = state.memory_used_bytes / GIB, state.memory_total_bytes / GIB
    says = f"driver {driver}; {used:.1f} of {whole:.1f} GiB taken, busy {state.utilization:.0%}"
    if state.temperature_c is not None:
        says += f", {state.temperature_c:.0f} °C"
    if state.uncorrected_errors:
        advice = "reset or replace the card: what it computes cannot be trusted"
        says += f", {state.uncorrected_errors} uncorrected memory errors"
        return Check("gpu state", Health.FAILED, says, advice)
    return Check("gpu state", Health.OK, says)
