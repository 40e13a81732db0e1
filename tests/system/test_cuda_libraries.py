"""CUDA's libraries are found wherever they lie, in made-up folders with real libraries that do nothing."""

import ctypes
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from nestvec.system.cuda_libraries import (
    BY_LOADER,
    CUDA_LIBRARIES,
    LOADED_BEFORE,
    load_libraries,
    system_folders,
    wheel_folders,
)

CUDART, CUBLAS_LT, CUBLAS, CURAND = CUDA_LIBRARIES


class Loader:
    """Loads files that exist, and names that it knows; remembers what it loaded.

    Args:
        known: Names that it finds by itself, as dlopen does in its own paths.
        loaded: Names of libraries that are loaded before.
    """

    def __init__(self, known: tuple[str, ...] = (), loaded: tuple[str, ...] = ()) -> None:
        self._known, self._loaded = known, loaded
        self.paths: list[str] = []

    def __call__(self, name: str, flags: int) -> object:
        """Load a library by path or name; raises OSError in the loader's words."""
        if flags & os.RTLD_NOLOAD:
            if name not in self._loaded:
                raise OSError(f"{name}: cannot open shared object file: No such file or directory")
            return None
        path = Path(name)
        if path.is_absolute() and path.read_text() == "broken":
            raise OSError("libnvJitLink.so.13: cannot open shared object file: No such file")
        if not path.is_absolute() and name not in self._known:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        self.paths.append(name)
        return None


def put(folder: Path, *names: str, content: str = "") -> Path:
    """Make a folder with files of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(content)
    return folder


def test_every_nvidia_folder_on_the_path_is_searched(tmp_path: Path) -> None:
    """Such as those of `pip --target`, of a user's site, and of the venv below: the path's order holds."""
    target, user, venv = (tmp_path / name for name in ("target", "user", "venv"))
    put(user / "nvidia/cudnn/lib", "libcudnn.so.9")
    put(venv / "nvidia/cu13/lib", *CUDA_LIBRARIES)
    put(venv / "nvidia/cu12/lib", "libcudart.so.12")
    put(venv / "nvidia/cublas/lib", "libcublas.so.12")
    (target / "nvidia").mkdir(parents=True)
    folders = list(wheel_folders(map(str, (target, user, venv, tmp_path / "none"))))
    below = ["cudnn/lib", "cu13/lib", "cu12/lib", "cublas/lib"]
    assert [str(f).split("nvidia/")[1] for f in folders] == below
    libraries = load_libraries(first=folders, last=(), load=Loader())
    assert not libraries.missing
    assert not libraries.broken
    assert libraries.places == {
        str(venv / "nvidia/cu13/lib"): list(CUDA_LIBRARIES),
        str(user / "nvidia/cudnn/lib"): ["libcudnn.so.9"],
    }


def test_a_folder_with_all_libraries_wins_over_one_with_some(tmp_path: Path) -> None:
    """The halves of cuBLAS must be of one version."""
    some = put(tmp_path / "first/nvidia/cu13/lib", CUDART, CUBLAS)
    every = put(tmp_path / "second/nvidia/cu13/lib", *CUDA_LIBRARIES)
    loader = Loader()
    load_libraries(CUDA_LIBRARIES, first=[some, every], last=(), load=loader)
    assert loader.paths == [str(every / name) for name in CUDA_LIBRARIES]


def test_a_system_cuda_is_found_without_the_loader_knowing_it(tmp_path: Path) -> None:
    """Roots that variables name come first, then the newest version; conda has them in its own `lib`."""
    named = put(tmp_path / "named/lib64", CURAND)
    old, new = (
        put(tmp_path / f"local/cuda-13.{minor}/targets/x86_64-linux/lib", *CUDA_LIBRARIES)
        for minor in (2, 10)
    )
    conda = put(tmp_path / "conda/lib")
    environment = {"CUDA_HOME": str(tmp_path / "named"), "CONDA_PREFIX": str(tmp_path / "conda")}
    folders = list(
        system_folders(
            environment, (f"{tmp_path}/local/cuda", f"{tmp_path}/local/cuda-*"), "/nowhere"
        )
    )
    assert folders == [named, new, old, conda]
    libraries = load_libraries(CUDA_LIBRARIES, first=(), last=folders, load=Loader())
    assert libraries.found[CUBLAS] == str(new / CUBLAS)


def test_what_is_loaded_and_what_the_loader_knows_is_taken(tmp_path: Path) -> None:
    """A second copy of what torch has loaded would be another library."""
    wheels = put(tmp_path / "nvidia/cu13/lib", CUBLAS)
    system = put(tmp_path / "cuda/lib64", *CUDA_LIBRARIES)
    loader = Loader(known=(CUDART, CUBLAS), loaded=(CUBLAS_LT,))
    libraries = load_libraries(CUDA_LIBRARIES, first=[wheels], last=[system], load=loader)
    assert libraries.found == {
        CUDART: BY_LOADER,
        CUBLAS_LT: LOADED_BEFORE,
        CUBLAS: str(wheels / CUBLAS),
        CURAND: str(system / CURAND),
    }


def test_broken_and_missing_ones_are_told_apart(tmp_path: Path) -> None:
    """A broken library does not keep a good one further on from being found; CUDA 12's are named as such."""
    broken = put(tmp_path / "a/nvidia/cu13/lib", CUDART, CUBLAS_LT, content="broken")
    good = put(tmp_path / "b/nvidia/cu13/lib", CUDART)
    put(good, "libcublas.so.12")
    libraries = load_libraries(CUDA_LIBRARIES, first=[broken, good], last=(), load=Loader())
    assert libraries.found == {CUDART: str(good / CUDART)}
    assert set(libraries.broken) == {CUBLAS_LT}
    assert "libnvJitLink" in libraries.broken[CUBLAS_LT]
    assert libraries.missing == [CUBLAS, CURAND]
    assert libraries.other_versions == [str(good / "libcublas.so.12")]


@pytest.fixture
def compile_library(tmp_path: Path) -> Callable[[str, Path], Path]:
    """A function that compiles a library of a name into a folder."""

    def compile_to(name: str, folder: Path) -> Path:
        folder.mkdir(parents=True)
        source = tmp_path / "empty.c"
        source.write_text("int nestvec_probe(void) { return 7; }")
        command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name)]
        try:
            subprocess.run([*command, str(source)], check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("there is no C compiler")
        return folder

    return compile_to


def test_a_library_that_was_loaded_is_known_by_its_name(
    tmp_path: Path, compile_library: Callable[[str, Path], Path]
) -> None:
    """That is how onnxruntime finds it, and how a second search sees it."""
    name = f"libnestvec-{os.getpid()}.so.13"
    folder = compile_library(name, tmp_path / "nvidia/cu13/lib")
    with pytest.raises(OSError, match="cannot open"):
        ctypes.CDLL(name)
    assert load_libraries([name], first=[folder], last=()).found == {name: str(folder / name)}
    assert ctypes.CDLL(name).nestvec_probe() == 7
    assert load_libraries([name], first=[folder], last=()).found == {name: LOADED_BEFORE}
