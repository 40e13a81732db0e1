"""The checks of `nestvec doctor`: each says what it found, and what to do where something is wrong."""

import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from nestvec import __version__
from nestvec.backends.providers import KERNEL_CAPABILITIES, has_kernels
from nestvec.errors import ProviderError
from nestvec.system.cpus import cpu_model, usable_cpus
from nestvec.system.cuda_driver import LIBRARY, Driver, Gpu, read_driver
from nestvec.system.cuda_libraries import CUDNN, DRIVER_FOLDERS, CudaLibraries
from nestvec.system.nvml import GpuState, Nvml
from nestvec.system.packages import RUNTIMES, installed_version

GIB: Final = 2**30
MIN_OPEN_FILES: Final = 4096
MIN_DISK_BYTES: Final = 2 * GIB
MIN_CUDA: Final = 13
LISTED_PACKAGES: Final = ("tokenizers", "fastapi", "uvicorn", "numpy")


class Health(StrEnum):
    """How a check went."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding, as `nestvec doctor --json` prints it.

    Attributes:
        name: What was looked at.
        health: How it is.
        says: What was found.
        advice: What to do; "" where all is well.
    """

    name: str
    health: Health
    says: str
    advice: str = ""


def load_cuda() -> CudaLibraries:
    """Load what onnxruntime's CUDA provider needs, from wherever it is, and return what was found."""
    from nestvec.backends.ort import find_libraries

    return find_libraries()


def package_folder(package: str) -> Path | None:
    """Return the folder into which a package was installed; None where it is not installed."""
    try:
        return Path(str(distribution(package).locate_file("")))
    except PackageNotFoundError:
        return None


def check_software(
    find: Callable[[str], str | None] = installed_version,
    folder_of: Callable[[str], Path | None] = package_folder,
    path: Sequence[str] | None = None,
) -> Iterator[Check]:
    """Check versions, and whether runtimes are in each other's way.

    Args:
        find: Gives a package's version; None where it is not installed.
        folder_of: Gives the folder into which a package was installed; None where it is not installed.
        path: Folders in which Python looks for packages, in order; `sys.path` by default.
    """
    python = platform.python_version()
    yield Check("nestvec", Health.OK, f"{__version__}, Python {python}, {platform.platform()}")
    runtimes = {name: version for name in RUNTIMES if (version := find(name))}
    versions = ", ".join(f"{name} {number}" for name, number in runtimes.items())
    if not {"onnxruntime", "onnxruntime-gpu"} & set(runtimes):
        advice = "install nestvec[cpu] or nestvec[gpu]"
        yield Check("runtime", Health.FAILED, "onnxruntime is not installed", advice)
    elif {"onnxruntime", "onnxruntime-gpu"} <= set(runtimes):
        cpu, gpu = (folder_of(name) for name in ("onnxruntime", "onnxruntime-gpu"))
        yield _both_runtimes(versions, cpu, gpu, sys.path if path is None else path)
    else:
        yield Check("runtime", Health.OK, versions)
    packages = ", ".join(f"{name} {find(name)}" for name in LISTED_PACKAGES)
    yield Check("packages", Health.OK, packages)


def _both_runtimes(versions: str, cpu: Path | None, gpu: Path | None, path: Sequence[str]) -> Check:
    """Say which of two packages with files of the same names is used."""
    if cpu == gpu:
        advice = "they overwrite each other's files: uninstall both, then install nestvec[gpu]"
        return Check("runtime", Health.FAILED, versions, advice)
    order = [Path(folder) for folder in path]
    if gpu in order and (cpu not in order or order.index(gpu) < order.index(cpu)):
        return Check("runtime", Health.OK, f"{versions}; the latter comes first, in {gpu}")
    advice = f"put {gpu} before {cpu} in PYTHONPATH, or uninstall onnxruntime"
    says = f"{versions}; the former comes first, so that there is no CUDA"
    return Check("runtime", Health.WARNING, says, advice)


def check_machine() -> Iterator[Check]:
    """Check the processor, the memory and the limit of open files."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    yield Check(
        "cpu", Health.OK, f"{cpu_model()}; {usable_cpus()} usable; {memory:.1f} GiB of memory"
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    says = f"{soft} open files allowed (at most {hard})"
    if soft < MIN_OPEN_FILES:
        advice = f"raise it, such as by `ulimit -n {min(hard, 65536)}`: each connection takes one"
        yield Check("open files", Health.WARNING, says, advice)
    else:
        yield Check("open files", Health.OK, says)


def check_folder(name: str, path: Path) -> Check:
    """Check a folder that is written to: it exists or can be made, is writable, and has room.

    Args:
        name: Name of the setting.
        path: The folder.
    """
    existing = next((part for part in (path, *path.parents) if part.exists()), Path("/"))
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        says = f"{path} cannot be written by this user"
        return Check(name, Health.FAILED, says, f"change its owner, or set {name}")
    free = shutil.disk_usage(existing).free
    says = f"{path}, {free / GIB:.1f} GiB free"
    if free < MIN_DISK_BYTES:
        return Check(name, Health.WARNING, says, "models of a gigabyte and more will not fit")
    return Check(name, Health.OK, says)


def check_gpu(
    device_id: int,
    *,
    is_asked_for: bool,
    read: Callable[[], Driver] = read_driver,
    load: Callable[[], CudaLibraries] = load_cuda,
    nvml: Callable[[], Nvml] = Nvml,
    find: Callable[[str], str | None] = installed_version,
) -> Iterator[Check]:
    """Check the GPU's driver, the card and the libraries; stops at the first that makes the others pointless.

    Args:
        device_id: Number of the GPU, as CUDA counts them.
        is_asked_for: Whether its absence is an error.
        read: Asks the driver.
        load: Loads CUDA's libraries.
        nvml: Begins to use the management library.
        find: Gives a package's version; None where it is not installed.
    """
    try:
        driver = read()
    except ProviderError as error:
        yield _missing_driver(error, is_asked_for=is_asked_for)
        return
    yield _driver(driver)
    if find("onnxruntime-gpu") is None:
        says = "there is a GPU, but this onnxruntime is for CPUs"
        health = Health.FAILED if is_asked_for else Health.WARNING
        yield Check("gpu runtime", health, says, "install nestvec[gpu] instead of nestvec[cpu]")
        return
    if device_id >= len(driver.gpus):
        health = Health.FAILED if is_asked_for else Health.OK
        yield Check("gpu", health, f"there is no GPU {device_id}", "set device_id")
        return
    card = driver.gpus[device_id]
    yield _card(device_id, card)
    yield check_libraries(load())
    yield _management(nvml, card)


def check_libraries(libraries: CudaLibraries) -> Check:
    """Say where CUDA's libraries were found, or which are missing and what helps."""
    places = "; ".join(f"{', '.join(names)}: {place}" for place, names in libraries.places.items())
    missing = [name for name in libraries.missing if name != CUDNN]
    broken = {name: why for name, why in libraries.broken.items() if name != CUDNN}
    if not missing and not broken:
        if CUDNN not in libraries.found:
            places += f"; {CUDNN} absent (only graphs that others exported may need it)"
        return Check("cuda libraries", Health.OK, places)
    says = [f"{name} cannot be loaded: {why}" for name, why in broken.items()]
    advice = "what they need is missing or of another version: install nestvec[gpu] anew"
    if missing:
        says.append(f"not found: {', '.join(missing)}")
        advice = (
            "install nestvec[gpu] with pip, or CUDA 13; where they are installed, put their folder "
            "into LD_LIBRARY_PATH"
        )
    if libraries.other_versions:
        says.append(f"of another version: {', '.join(libraries.other_versions)}")
    if places:
        says.append(f"found: {places}")
    return Check("cuda libraries", Health.FAILED, "; ".join(says), advice)


def _missing_driver(error: ProviderError, *, is_asked_for: bool) -> Check:
    found = [folder for folder in DRIVER_FOLDERS if (folder / LIBRARY).exists()]
    if found:
        says = f"{error.message}, but it is in {found[0]}"
        health = Health.FAILED if is_asked_for else Health.WARNING
        return Check("gpu driver", health, says, f"put {found[0]} into LD_LIBRARY_PATH")
    if not is_asked_for:
        return Check("gpu driver", Health.OK, error.message)
    advice = (
        "install NVIDIA's driver; in a container, start it with the GPU (compose profile gpu, `--gpus all`), whose "
        "driver capabilities must hold `compute`: `utility` alone gives nvidia-smi without CUDA"
    )
    return Check("gpu driver", Health.FAILED, error.message, advice)


def _driver(driver: Driver) -> Check:
    says = f"runs CUDA up to {driver.cuda}; {len(driver.gpus)} GPUs"
    if int(driver.cuda.split(".")[0]) < MIN_CUDA:
        advice = f"onnxruntime-gpu needs a driver for CUDA {MIN_CUDA}: update it"
        return Check("gpu driver", Health.FAILED, says, advice)
    return Check("gpu driver", Health.OK, says)


def _card(device_id: int, card: Gpu) -> Check:
    memory = f"{card.memory_bytes / GIB:.0f} GiB"
    says = f"{device_id}: {card.name}, capability {card.capability}, {memory}"
    if not has_kernels(card.capability):
        advice = f"the onnxruntime-gpu wheel has kernels for {', '.join(KERNEL_CAPABILITIES)} only"
        return Check("gpu", Health.FAILED, says, advice)
    return Check("gpu", Health.OK, says)


def _management(nvml: Callable[[], Nvml], card: Gpu) -> Check:
    try:
        library = nvml()
        state = library.state(card.uuid)
    except ProviderError as error:
        advice = "metrics of the GPU are off; serving works without them"
        return Check("gpu state", Health.WARNING, error.message, advice)
    check = _state(state, library.driver)
    library.close()
    return check


def _state(state: GpuState, driver: str) -> Check:
    used, total = state.memory_used_bytes / GIB, state.memory_total_bytes / GIB
    says = f"driver {driver}; {used:.1f} of {total:.1f} GiB taken"
    if state.utilization is not None:
        says += f", busy {state.utilization:.0%}"
    if state.temperature_c is not None:
        says += f", {state.temperature_c:.0f} °C"
    if state.uncorrected_errors:
        advice = "reset or replace the card: what it computes cannot be trusted"
        says += f", {state.uncorrected_errors} uncorrected memory errors"
        return Check("gpu state", Health.FAILED, says, advice)
    return Check("gpu state", Health.OK, says)
