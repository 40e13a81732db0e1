"""What `nestvec doctor` says of machines with faults, most of which are not at hand."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from nestvec.errors import ProviderError
from nestvec.system.cuda_driver import Driver, Gpu
from nestvec.system.nvml import GpuState
from nestvec.tools.diagnostics.checks import (
    CUDNN,
    Check,
    Health,
    check_folder,
    check_gpu,
    check_machine,
    check_software,
    load_cuda,
)

from tests.support.server import command, environment

CARD = Gpu(0, "NVIDIA H100", "9.0", 80 * 2**30, "GPU-0")
DRIVER = Driver("13.0", (CARD,))
BLACKWELL = Driver("13.0", (Gpu(0, "B200", "10.0", 1, "GPU-0"),))
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
        "load": lambda: "all there",
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
    checks = checked()
    assert all(check.health is Health.OK and not check.advice for check in checks.values())
    assert "NVIDIA H100, capability 9.0, 80 GiB" in checks["gpu"].says
    assert "1.0 of 80.0 GiB taken, busy 25%, 41 °C" in checks["gpu state"].says


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
        ("cuda libraries", {"load": raising("libcudart.so.13 is missing")}, "libcudart", "pip"),
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


def test_libraries_that_are_missing_are_named() -> None:
    """All of them but cuDNN are needed."""

    def load(missing: set[str]) -> Any:
        def load_or_fail(name: str) -> None:
            if name in missing:
                raise OSError(name)

        return load_or_fail

    assert "cuDNN there" in load_cuda(load(set()))
    assert "cuDNN absent" in load_cuda(load({CUDNN}))
    with pytest.raises(ProviderError, match=r"libcublas\.so\.13"):
        load_cuda(load({"libcublas.so.13"}))


def test_runtimes_that_overwrite_each_other_are_found() -> None:
    """Both packages have files of the same names, so having both is a failure, and so is having none."""
    both = {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}
    checks = {check.name: check for check in check_software(both.get)}
    assert checks["runtime"].health is Health.FAILED
    assert "uninstall both" in checks["runtime"].advice
    none = {check.name: check for check in check_software(lambda _: None)}
    assert none["runtime"].health is Health.FAILED


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

    status, checks = doctor("--port", "0")
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
    } <= {check["name"] for check in checks}
    status, checks = doctor("--provider", "cuda", "--offline")
    if not any(check["name"] == "gpu" for check in checks):
        assert status == 1
        assert checks[-1]["health"] == "failed"
