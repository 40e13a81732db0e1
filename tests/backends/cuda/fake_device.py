"""Processes on fake CUDA devices (`fake_cuda.c`): how the library is built, preloaded and asked what was called."""

import ctypes
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
LIBRARY = "FAKE_CUDA"
TIMEOUT_S = 300


def build_library(folder: Path) -> Path:
    """Compile the fake library into a folder; CUDA's headers come with its runtime's package."""
    headers = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "include"
    library = folder / "libcuda.so.1"
    source = str(HERE / "fake_cuda.c")
    subprocess.run(
        ["cc", "-w", "-O1", "-shared", "-fPIC", f"-I{headers}", "-o", str(library), source],
        check=True,
    )
    (folder / "libnvidia-ml.so.1").symlink_to(library)
    return library


def run_on_fake(
    library: Path, arguments: Sequence[str], **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python module in a process of its own, into which the library is preloaded."""
    environment: Mapping[str, str] = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "LD_LIBRARY_PATH": str(library.parent),
        LIBRARY: str(library),
        **variables,
    }
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=TIMEOUT_S,
    )


class FakeCuda:
    """The fake library of this process: Nestvec takes it for CUDA's runtime from here on, and tests ask it."""

    def __init__(self) -> None:
        from nestvec.backends import ort
        from nestvec.backends.cuda import runtime
        from nestvec.system.cuda_libraries import CUDA_LIBRARIES, load_libraries

        self._library = ctypes.CDLL(os.environ[LIBRARY])
        self._library.fake_count.restype = ctypes.c_long
        setattr(runtime, "RUNTIME_NAMES", (os.environ[LIBRARY],))  # noqa: B010 - the constant is final
        # There is no fake of cuDNN; the provider starts without it too.
        setattr(ort, "load_libraries", partial(load_libraries, CUDA_LIBRARIES))  # noqa: B010 - not exported

    def count(self, name: str) -> int:
        """Return one of the library's counters."""
        return int(self._library.fake_count(name.encode()))

    def limit(self, size: int) -> None:
        """Leave so many bytes of the first device's memory free, or with -1 all that there were."""
        self._library.fake_limit(0, ctypes.c_long(size))

    def hold_copies(self, size: int) -> None:
        """Make copies to a device of so many bytes or more wait, as those of a large model's weights do."""
        self._library.fake_hold_copies(ctypes.c_size_t(size))

    def release_copies(self) -> None:
        """Let all copies go on."""
        self._library.fake_release_copies()
