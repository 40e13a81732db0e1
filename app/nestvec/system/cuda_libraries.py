"""Finds and loads CUDA's libraries, wherever pip, conda, a system package or a container has put them.

onnxruntime looks for NVIDIA's wheels beside its own folder only. A layered environment (`pip --target`, a user's site,
a venv over another's packages) has them elsewhere, and a system CUDA is known to the loader only where somebody said
so. A library that is loaded is found by its name from then on, by onnxruntime too.
"""

import ctypes
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# What onnxruntime's CUDA provider is linked against, each behind what it needs itself.
CUDA_LIBRARIES: Final = (
    "libcudart.so.13",
    "libcublasLt.so.13",
    "libcublas.so.13",
    "libcurand.so.10",
)
# onnxruntime opens it by name where a node needs it, which no graph of ours has.
CUDNN: Final = "libcudnn.so.9"
# Variables that name a root of CUDA, and where such roots usually are.
ROOT_VARIABLES: Final = ("CUDA_HOME", "CUDA_PATH")
ROOTS: Final = ("/usr/local/cuda", "/usr/local/cuda-*", "/opt/cuda", "/opt/nvidia/cuda*")
# Folders of libraries below a root: of NVIDIA's packages, of its wheels, and of conda.
LIBRARY_FOLDERS: Final = ("lib64", "lib", "targets/*/lib")
# Where drivers of clouds, WSL and NixOS put `libcuda.so.1` without telling the loader.
DRIVER_FOLDERS: Final = (
    Path("/usr/local/nvidia/lib64"),
    Path("/usr/lib/wsl/lib"),
    Path("/run/opengl-driver/lib"),
)
LOADED_BEFORE: Final = "loaded before"
BY_LOADER: Final = "the loader's own paths"


@dataclass(slots=True)
class CudaLibraries:
    """What became of the libraries that were looked for.

    Attributes:
        found: Where each library was found that could be loaded: its path, `LOADED_BEFORE` or `BY_LOADER`.
        broken: Why a library that is there could not be loaded, by its name.
        missing: Names of those that are nowhere.
        other_versions: Files of other versions of what is missing, such as those of CUDA 12.
    """

    found: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    other_versions: list[str] = field(default_factory=list)

    @property
    def places(self) -> dict[str, list[str]]:
        """Names of the libraries that were found, by the folder in which they are."""
        places: dict[str, list[str]] = {}
        for name, path in self.found.items():
            places.setdefault(str(Path(path).parent) if "/" in path else path, []).append(name)
        return places


def wheel_folders(paths: Iterable[str] | None = None) -> Iterator[Path]:
    """Yield the folders in which wheels of NVIDIA keep libraries, in the order of Python's search path.

    There may be several folders `nvidia`: as a package without `__init__.py` it is the sum of them.

    Args:
        paths: Folders that hold packages; `sys.path` by default, and the folder of onnxruntime.
    """
    for path in dict.fromkeys(_package_folders() if paths is None else paths):
        nvidia = Path(path or ".") / "nvidia"
        # Wheels of CUDA 13 share a folder; cuDNN's and those of before have one each.
        shared = sorted(nvidia.glob("cu[0-9]*/lib"), key=lambda f: _version(f.parent), reverse=True)
        yield from shared
        yield from sorted(set(nvidia.glob("*/lib")) - set(shared))


def system_folders(
    environment: Mapping[str, str], roots: Sequence[str] = ROOTS, prefix: str = sys.prefix
) -> Iterator[Path]:
    """Yield the folders in which a system's CUDA lies, without Python's packages and the loader's own paths.

    Args:
        environment: Variables of the process.
        roots: Patterns of folders; of those that one pattern finds the newest comes first.
        prefix: Folder of Python's environment, which is conda's too.
    """
    named = [environment[name] for name in ROOT_VARIABLES if environment.get(name)]
    found = [
        folder
        for root in roots
        for folder in sorted(Path("/").glob(root.lstrip("/")), key=_version, reverse=True)
    ]
    conda = [path for path in (environment.get("CONDA_PREFIX"), prefix) if path]
    for folder in dict.fromkeys([*map(Path, named), *found, *map(Path, conda)]):
        for pattern in LIBRARY_FOLDERS:
            yield from sorted(folder.glob(pattern))


def load_libraries(
    names: Sequence[str] = (*CUDA_LIBRARIES, CUDNN),
    *,
    first: Iterable[Path] | None = None,
    last: Iterable[Path] | None = None,
    load: Callable[[str, int], object] = ctypes.CDLL,
) -> CudaLibraries:
    """Load libraries for the whole process, from the first place that has them.

    Loaded already (as by torch) is as good; then come the wheels, the loader's own paths (LD_LIBRARY_PATH,
    ld.so.conf), and where a system's CUDA usually is. Of two folders the one that has more of the libraries is taken:
    cuBLAS does not work with the other half of another version.

    Args:
        names: Names of the libraries, each behind what it needs.
        first: Folders before the loader's own paths; NVIDIA's wheels by default.
        last: Folders behind them; the system's by default.
        load: Loads a library by path or name and with flags of dlopen; may raise OSError.
    """
    wheels = list(wheel_folders() if first is None else first)
    systems = list(system_folders(os.environ) if last is None else last)
    before, behind = _by_content(wheels, names), _by_content(systems, names)
    libraries = CudaLibraries()
    for name in names:
        if _is_loaded(name, load):
            libraries.found[name] = LOADED_BEFORE
            continue
        candidates = [
            *(str(folder / name) for folder in before if (folder / name).exists()),
            name,
            *(str(folder / name) for folder in behind if (folder / name).exists()),
        ]
        for candidate in candidates:
            try:
                load(candidate, ctypes.RTLD_GLOBAL)
            except OSError as error:
                if f"{name}: cannot open" not in str(error) or "/" in candidate:
                    libraries.broken.setdefault(name, str(error))
                continue
            libraries.found[name] = candidate if "/" in candidate else BY_LOADER
            libraries.broken.pop(name, None)
            break
        else:
            if name not in libraries.broken:
                libraries.missing.append(name)
                stem = name.split(".so.")[0]
                others = (
                    f for folder in [*wheels, *systems] for f in folder.glob(f"{stem}.so.[0-9]*")
                )
                libraries.other_versions += sorted(map(str, others))
    return libraries


def _package_folders() -> list[str]:
    onnxruntime = importlib.util.find_spec("onnxruntime")
    beside = (
        [str(Path(onnxruntime.origin).parents[1])] if onnxruntime and onnxruntime.origin else []
    )
    return [*sys.path, *beside]


def _by_content(folders: Iterable[Path], names: Sequence[str]) -> list[Path]:
    """Return the folders that have any of the files, those with more of them first."""
    counts = {
        folder: sum((folder / name).exists() for name in names)
        for folder in dict.fromkeys(map(Path, folders))
    }
    return sorted((f for f, count in counts.items() if count), key=lambda f: -counts[f])


def _is_loaded(name: str, load: Callable[[str, int], object]) -> bool:
    try:
        load(name, os.RTLD_NOLOAD | ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def _version(path: Path) -> list[int]:
    """Return the numbers in a folder's name, so that cuda-13.10 is newer than cuda-13.2."""
    return [int(number) for number in re.findall(r"\d+", path.name)]
