"""What is packed for a GPU host without a network, and how it is unpacked there."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.bundle import (
    CUDA,
    LOCK,
    MIB,
    cut,
    environment_of,
    fill,
    needed_by,
    pins_of,
    requirements_in,
    roots,
    strip,
)

ROOT = Path(__file__).parents[2]
PY312 = environment_of("3.12")
PINS = """\
async-timeout==5.0.1 ; python_full_version < '3.11.3' \\
    --hash=sha256:aa
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:bb
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:cc \\
    --hash=sha256:dd
uvicorn[standard]==0.54.0 \\
    --hash=sha256:ee
"""


def test_pins_are_those_of_the_hosts_python_with_their_hashes() -> None:
    """A lock for all Pythons names some packages twice, and some for others only."""
    pins = pins_of(PINS, PY312)
    assert list(pins) == ["numpy", "uvicorn"]
    assert pins["numpy"] == "numpy==2.5.5 \\\n    --hash=sha256:cc \\\n    --hash=sha256:dd"
    assert pins["uvicorn"].startswith("uvicorn==0.54.0 \\\n")
    assert pins_of(PINS, environment_of("3.11"))["numpy"].startswith("numpy==2.4.6")


def test_requirements_follow_markers_and_extras() -> None:
    """Of an extra only what it asks for is needed."""
    asked = [
        "a[fast]>=1",
        "Big_Name; python_version < '3.12'",
        "C.d; python_version >= '3.12'",
        "e; extra == 'more'",
    ]
    assert needed_by(asked, PY312) == {"a": {"fast"}, "c-d": set()}
    assert set(needed_by(asked, PY312, ("", "more"))) == {"a", "c-d", "e"}


def test_all_that_the_server_imports_on_a_gpu_host_is_in_the_lock() -> None:
    """Walked by what the installed packages ask for; what only FastAPI's newest wants too, and no part of CUDA."""
    pins = pins_of(LOCK.read_text(), PY312)
    seen: set[str] = set()
    wanted = needed_by(roots(), PY312)
    while wanted:
        seen |= set(wanted)
        again: dict[str, set[str]] = {}
        for name, extras in wanted.items():
            try:
                asked = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                # onnxruntime-gpu and NVIDIA's, in whose place tests have the build for CPUs.
                assert CUDA.match(name) or name in ("onnxruntime-gpu", "nvidia-ml-py"), name
                continue
            again |= needed_by(asked, PY312, ("", *extras))
        wanted = {name: extras for name, extras in again.items() if name not in seen}
    assert {"fastapi", "opentelemetry-api", "uvicorn", "numpy", "nvidia-ml-py"} <= seen
    assert seen <= set(pins)
    assert not {"psycopg", "obstore", "redis", "tiktoken"} & seen


def test_levels_are_installed_until_nothing_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each package once, those of extras too, and none that the host has."""
    wheels = {"a": ["b", "c[x]"], "b": ["c"], "c": ["d; extra == 'x'"], "d": [], "host": ["e"]}
    installed: list[str] = []

    def install(site: Path, pins: list[str], python: str) -> None:
        assert python == "3.12"
        for pin in pins:
            name = pin.split("==")[0]
            installed.append(name)
            folder = site / f"{name}-1.dist-info"
            folder.mkdir(parents=True)
            lines = [f"Name: {name}", *(f"Requires-Dist: {asked}" for asked in wheels[name])]
            (folder / "METADATA").write_text("\n".join(lines) + "\n\ntext\n")

    monkeypatch.setattr("benchmarks.gpu.bundle._install", install)
    pins = {name: f"{name}==1" for name in "abcd"}
    assert fill(tmp_path, pins, "3.12", ["host"], ["a", "host"]) == ["a", "b", "c", "d"]
    assert installed == ["a", "b", "c", "d"]
    assert requirements_in(tmp_path)["c"] == ["d; extra == 'x'"]
    with pytest.raises(SystemExit, match="the lock has no host"):
        fill(tmp_path, pins, "3.12", [], ["a", "host"])


STUB = """#!/bin/sh
# Stands for the host's Python: what it would run is told, with where it would find packages.
case "$1" in
  -c) exec {python} "$@" ;;
  *) echo "RUN $PYTHONPATH|$*"; test -f "${{PYTHONPATH%%:*}}/module.py" || exit 9 ;;
esac
"""


def make_pieces(tmp_path: Path) -> Path:
    """Make a bundle of a module and of things that are left out, in pieces of a MiB."""
    site, pieces = tmp_path / "site", tmp_path / "pieces"
    for name in ("module.py", "numpy/tests/test_a.py", "onnxruntime/capi/libonnxruntime.so.1.31.1"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(name)
    (site / "onnxruntime/capi/libonnxruntime_providers_cuda.so").write_bytes(os.urandom(MIB))
    strip(site)
    assert sorted(str(f.relative_to(site)) for f in site.rglob("*") if f.is_file()) == [
        "module.py",
        "onnxruntime/capi/libonnxruntime_providers_cuda.so",
    ]
    pieces.mkdir(exist_ok=True)
    assert len(cut(site, pieces, 1, 0)) == 2
    (pieces / "PYTHON").write_text(f"{sys.version_info[0]}.{sys.version_info[1]}\n")
    return pieces


@pytest.mark.process
def test_the_host_script_puts_the_bundle_before_the_hosts_packages(tmp_path: Path) -> None:
    """It unpacks, says what doctor finds, and runs the check; a wrong Python or a broken piece ends it with words."""
    pieces = make_pieces(tmp_path)
    stub = tmp_path / "python3"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    environment = {
        **os.environ,
        "PYTHON": str(stub),
        "WORK": str(tmp_path / "work"),
        "PYTHONPATH": "/x",
    }

    def run() -> subprocess.CompletedProcess[str]:
        command = ["bash", str(ROOT / "benchmarks/gpu/host.sh"), str(pieces), str(tmp_path / "out")]
        return subprocess.run(
            [*command, "--steps", "first"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    (pieces / "PYTHON").write_text("3.99\n")
    wrong = run()
    assert wrong.returncode == 1
    assert "the bundle is for Python 3.99" in wrong.stderr
    make_pieces(tmp_path)
    whole = (pieces / "piece-01").read_bytes()
    (pieces / "piece-01").write_bytes(whole[:-1])
    assert "piece-01" in run().stdout + run().stderr
    assert not (tmp_path / "work/unpacked").exists()
    (pieces / "piece-01").write_bytes(whole)
    good = run()
    assert good.returncode == 0, good.stderr
    path, doctor = (tmp_path / "out/doctor.txt").read_text().strip().removeprefix("RUN ").split("|")
    assert path == f"{tmp_path}/work/site:{ROOT}/app:{ROOT}:/x"
    assert doctor == "-m nestvec doctor --provider cuda"
    assert good.stdout.strip().endswith("--steps first")
    assert "-m benchmarks.gpu.check --out" in good.stdout
