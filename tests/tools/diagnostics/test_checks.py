"""What `nestvec doctor` says of machines with faults, most of which are not at hand."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from nestvec.errors import ProviderError
from nestvec.system.cuda_driver import Driver, Gpu
from nestvec.system.cuda_libraries import CUDA_LIBRARIES, CUDNN, LOADED_BEFORE, CudaLibraries
from nestvec.system.nvml import GpuState
from nestvec.tools.diagnostics import checks
from nestvec.tools.diagnostics.checks import (
    Check,
    Health,
    check_folder,
    check_gpu,
    check_machine,
    check_software,
)

from tests.support.server import command, environment

CARD = Gpu(0, "NVIDIA H100", "9.0", 80 * 2**30, "GPU-0")
DRIVER = Driver("13.0", (CARD,))
BLACKWELL = Driver("13.0", (Gpu(0, "B200", "10.0", 1, "GPU-0"),))
FOUND = {name: f"/site/nvidia/cu13/lib/{name}" for name in CUDA_LIBRARIES}
WORN = GpuState(0, 1, 2, uncorrected_errors=3)


class FakeNvml:
    """The management library, which answers for one card."""

    driver = "580.1"

    def __init__(self, state: GpuState | None = None) -> None:
        self._state = state or GpuState(0.25, 2**30, 80 * 2**30, 41.0, 90.0, 0)

    def state(self, uuid: str) -> GpuState:
        """Return the state that it was made with."""
        assert uuid == CARD.uuid
        return self._state

    def close(self) -> None:
        """End nothing."""


def checked(*, is_asked_for: bool = True, device_id: int = 0, **changes: Any) -> dict[str, Check]:
    """Return the checks by name, of a machine where all is well except for what is changed."""
    parts: dict[str, Any] = {
        "read": lambda: DRIVER,
        "load": lambda: CudaLibraries(FOUND),
        "nvml": FakeNvml,
        "find": {"onnxruntime-gpu": "1.31.1"}.get,
        **changes,
    }
    return {check.name: check for check in check_gpu(device_id, is_asked_for=is_asked_for, **parts)}


def raising(message: str) -> Any:
    """Return a function that raises, as for something that is not there."""

    def fail(*_: object) -> None:
        raise ProviderError(message)

    return fail


def test_on_a_gpu_host_in_order_all_checks_are_ok() -> None:
    """They say what the host has, and give no advice."""
    found = checked()
    assert all(check.health is Health.OK and not check.advice for check in found.values())
    assert "NVIDIA H100, capability 9.0, 80 GiB" in found["gpu"].says
    assert "1.0 of 80.0 GiB taken, busy 25%, 41 °C" in found["gpu state"].says


@pytest.mark.parametrize(
    ("name", "changes", "says", "advice"),
    [
        (
            "gpu driver",
            {"read": raising("no NVIDIA driver")},
            "no NVIDIA driver",
            "compose profile gpu",
        ),
        ("gpu driver", {"read": lambda: Driver("12.4", (CARD,))}, "up to 12.4", "update it"),
        ("gpu runtime", {"find": {"onnxruntime": "1.31.1"}.get}, "for CPUs", "nestvec[gpu]"),
        ("gpu", {"device_id": 3}, "no GPU 3", "device_id"),
        (
            "gpu",
            {
                "read": lambda: Driver("13.0", (Gpu(0, "B200", "10.0", 1, "GPU-0"),)),
                "nvml": raising("x"),
            },
            "10.0",
            "has kernels for",
        ),
        (
            "gpu state",
            {"nvml": lambda: FakeNvml(WORN)},
            "3 uncorrected",
            "cannot be trusted",
        ),
    ],
)
def test_each_fault_of_a_gpu_host_is_named_with_the_way_out(
    name: str, changes: dict[str, Any], says: str, advice: str
) -> None:
    """Each such check fails where a GPU was asked for."""
    check = checked(**changes)[name]
    assert check.health is Health.FAILED
    assert says in check.says
    assert advice in check.advice


def test_having_no_gpu_is_ok_where_none_was_asked_for() -> None:
    """A GPU that the installation cannot use is a warning."""
    assert checked(is_asked_for=False, read=raising("no driver"))["gpu driver"].health is Health.OK
    unused = checked(is_asked_for=False, find={"onnxruntime": "1.31.1"}.get)["gpu runtime"]
    assert unused.health is Health.WARNING
    silent = checked(nvml=raising("nvidia-ml-py is not installed"))["gpu state"]
    assert silent.health is Health.WARNING


def test_where_libraries_were_found_is_said() -> None:
    """Without cuDNN all is well."""
    says = checked(load=lambda: CudaLibraries(FOUND))["cuda libraries"].says
    assert says.startswith(
        f"{', '.join(CUDA_LIBRARIES)}: /site/nvidia/cu13/lib; libcudnn.so.9 absent"
    )
    says = checked(load=lambda: CudaLibraries({**FOUND, CUDNN: LOADED_BEFORE}))[
        "cuda libraries"
    ].says
    assert says.endswith(f"{CUDNN}: loaded before")


@pytest.mark.parametrize(
    ("libraries", "says", "advice"),
    [
        (
            CudaLibraries(missing=[CUDA_LIBRARIES[2], CUDNN]),
            "not found: libcublas.so.13",
            "LD_LIBRARY_",
        ),
        (CudaLibraries(broken={CUDA_LIBRARIES[2]: "GLIBC_9"}), "cannot be loaded: GLIBC_9", "anew"),
        (
            CudaLibraries(missing=[CUDA_LIBRARIES[0]], other_versions=["/cuda-12/libcudart.so.12"]),
            "of another version: /cuda-12/libcudart.so.12",
            "CUDA 13",
        ),
    ],
)
def test_libraries_that_are_missing_or_broken_are_named(
    libraries: CudaLibraries, says: str, advice: str
) -> None:
    """With where others were found, or which version there is instead."""
    check = checked(load=lambda: libraries)["cuda libraries"]
    assert check.health is Health.FAILED
    assert says in check.says
    assert CUDNN not in check.says
    assert advice in check.advice


def test_a_driver_that_the_loader_does_not_know_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clouds put it into a folder that the loader does not search."""
    (tmp_path / "libcuda.so.1").touch()
    monkeypatch.setattr(checks, "DRIVER_FOLDERS", (tmp_path / "none", tmp_path))
    check = checked(read=raising("no NVIDIA driver"))["gpu driver"]
    assert check.health is Health.FAILED
    assert check.advice == f"put {tmp_path} into LD_LIBRARY_PATH"


def test_runtimes_that_overwrite_each_other_are_found() -> None:
    """Both packages have files of the same names, so having both is a failure, and so is having none."""
    both = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}
    one_folder = dict.fromkeys(both, Path("/site")).get
    found = {check.name: check for check in check_software(both.get, one_folder)}
    assert found["runtime"].health is Health.FAILED
    assert "uninstall both" in found["runtime"].advice
    none = {check.name: check for check in check_software(lambda _: None)}
    assert none["runtime"].health is Health.FAILED


def test_runtimes_in_different_folders_do_not_overwrite_each_other() -> None:
    """The one that Python finds first counts, as where a bundle lies over a host's own packages."""
    both = {"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.1"}
    folders = {"onnxruntime": Path("/host"), "onnxruntime-gpu": Path("/bundle")}

    def runtime(*path: str) -> Check:
        found = check_software(both.get, folders.get, path)
        return next(check for check in found if check.name == "runtime")

    assert runtime("/bundle", "/host").health is Health.OK
    hidden = runtime("/host", "/bundle")
    assert hidden.health is Health.WARNING
    assert "put /bundle before /host" in hidden.advice


def test_folders_and_limits_are_checked(tmp_path: Path) -> None:
    """A folder that does not exist yet is judged by the nearest one above it that does."""
    assert check_folder("cache_dir", tmp_path / "a" / "b").health is Health.OK
    file = tmp_path / "file"
    file.touch()
    blocked = check_folder("cache_dir", file / "cache")
    assert blocked.health is Health.FAILED
    assert "set cache_dir" in blocked.advice
    assert {check.name for check in check_machine()} == {"cpu", "open files"}


@pytest.mark.process
def test_the_command_prints_all_and_fails_where_something_would_not_work(tmp_path: Path) -> None:
    """With --json it prints JSON for scripts; its status is 1 if any check failed."""

    def doctor(*flags: str) -> tuple[int, list[dict[str, str]]]:
        completed = subprocess.run(
            command("doctor", "--json", "--cache-dir", str(tmp_path), *flags),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return completed.returncode, json.loads(completed.stdout)

    status, found = doctor("--port", "0")
    assert status == 0
    assert {
        "nestvec",
        "runtime",
        "cpu",
        "cache_dir",
        "gpu driver",
        "provider",
        "port",
        "memory",
        "extras",
    } <= {check["name"] for check in found}
    status, found = doctor("--provider", "cuda", "--offline")
    if not any(check["name"] == "gpu" for check in found):
        assert status == 1
        assert found[-1]["health"] == "failed"
