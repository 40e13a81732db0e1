"""Packs what a GPU host without a network needs to run the server, in pieces that are small enough to carry.

The versions are those of requirements/gpu.txt, hashes checked; of them only what the server imports there. Left out
are CUDA's own libraries, which a host with a GPU has, and what else the host is said to have. benchmarks/gpu/host.sh
unpacks the pieces.

Usage: python -m benchmarks.gpu.bundle OUT [--python 3.12] [--host-has numpy,onnx] [--piece-mib 56]
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from email.parser import Parser
from pathlib import Path
from typing import Final

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]
LOCK: Final = ROOT / "requirements" / "gpu.txt"
# A pinned requirement and, in further lines, its hashes.
PINNED: Final = re.compile(
    r"^(?P<name>[A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==(?P<version>[^ ;\\]+)"
    r"(?: ; (?P<marker>[^\\\n]*))?(?P<hashes>(?:\s*\\\n\s+--hash=\S+)+)",
    re.MULTILINE,
)
# Names of NVIDIA's own libraries; nvidia-ml-py is a module.
CUDA: Final = re.compile(r"^nvidia-(?!ml-py)")
# Tags of wheels that run with glibc 2.28 and newer, as of Debian 10, RHEL 8 and Ubuntu 20.04.
PLATFORMS: Final = (
    *("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_24_x86_64"),
    *("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_12_x86_64"),
    *("manylinux2010_x86_64", "manylinux_2_5_x86_64", "manylinux1_x86_64", "any"),
)
# What nothing imports: onnxruntime's library for C, 29 MB, and the provider of TensorRT; tests; what is for compilers.
UNUSED: Final = (
    *(
        "onnxruntime/capi/libonnxruntime.so.*",
        "onnxruntime/capi/libonnxruntime_providers_tensorrt.so",
    ),
    *("**/tests", "**/*.a", "**/*.h", "**/*.pyi", "**/*.pyx", "bin"),
)
MIB: Final = 2**20


def pins_of(lock: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a lock pins in an environment: requirements with their hashes, by canonical name.

    Args:
        lock: Text of the lock.
        environment: Values of markers, such as "python_version".
    """
    pins: dict[str, str] = {}
    for found in PINNED.finditer(lock):
        if found["marker"] is None or Marker(found["marker"]).evaluate(dict(environment)):
            requirement = f"{found['name']}=={found['version']}"
            pins[canonicalize_name(found["name"])] = f"{requirement} {found['hashes'].strip()}"
    return pins


def environment_of(python: str) -> dict[str, str]:
    """Return the values of markers of CPython on Linux, x86-64.

    Args:
        python: Its version, such as "3.12".
    """
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "platform_release": "",
        "platform_version": "",
    }


def needed_by(
    requirements: Iterable[str], environment: Mapping[str, str], extras: Iterable[str] = ("",)
) -> dict[str, set[str]]:
    """Return the canonical names of packages that requirements ask for in an environment, with the extras of each.

    Args:
        requirements: Requirements as pyproject.toml and wheels have them.
        environment: Values of markers.
        extras: Extras of whatever has these requirements; "" stands for none.
    """
    names: dict[str, set[str]] = {}
    for line in requirements:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**environment, "extra": e}) for e in extras):
            names.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    return names


def requirements_in(site: Path) -> dict[str, list[str]]:
    """Return the requirements of every package in a folder of packages, by canonical name."""
    found: dict[str, list[str]] = {}
    for file in site.glob("*.dist-info/METADATA"):
        metadata = Parser().parsestr(file.read_text("utf-8"), headersonly=True)
        found[canonicalize_name(metadata["Name"])] = metadata.get_all("Requires-Dist") or []
    return found


def roots() -> list[str]:
    """Return what the project itself asks for on a GPU host."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["gpu"]]


def fill(
    site: Path,
    pins: Mapping[str, str],
    python: str,
    left_out: Iterable[str],
    asked: Iterable[str],
) -> list[str]:
    """Install what is needed of a lock into a folder, level by level; returns the names.

    Args:
        site: The folder.
        pins: What the lock pins, by canonical name.
        python: Version of the host's Python.
        left_out: Canonical names of what the host has.
        asked: Requirements to begin with.

    Raises:
        SystemExit: Something that is needed is not in the lock.
    """
    environment = environment_of(python)
    absent = set(left_out)
    done: dict[str, set[str]] = {}
    wanted = needed_by(asked, environment)
    while wanted:
        missing = sorted(set(wanted) - set(pins) - absent)
        if missing:
            raise SystemExit(f"the lock has no {', '.join(missing)}: make lock")
        new = [name for name in wanted if name not in done and name not in absent]
        _install(site, [pins[name] for name in new], python)
        found = requirements_in(site)
        again: dict[str, set[str]] = {}
        for name, extras in wanted.items():
            known = done.setdefault(name, set())
            if name in found and (name in new or extras - known):
                for needed, more in needed_by(found[name], environment, ("", *extras)).items():
                    again.setdefault(needed, set()).update(more)
            known |= extras
        wanted = {n: more for n, more in again.items() if n not in done or more - done[n]}
    return sorted(set(done) - absent)


def _install(site: Path, pins: list[str], python: str) -> None:
    """Have pip fetch wheels for the host's Python, check their hashes, and unpack them."""
    if not pins:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pins) + "\n")
        file.flush()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--no-compile", "--require-hashes", "--only-binary=:all:"]
        command += ["--implementation", "cp", "--python-version", python, "--upgrade"]
        # pip holds what it installs against the Python that it runs on, not against the one that is named.
        command += ["--ignore-requires-python"]
        for platform in PLATFORMS:
            command += ["--platform", platform]
        subprocess.run([*command, "--target", str(site), "-r", file.name], check=True)


def strip(site: Path) -> None:
    """Remove what nothing imports."""
    for pattern in UNUSED:
        for path in list(site.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def cut(site: Path, out: Path, piece_mib: int, level: int) -> list[Path]:
    """Pack a folder into a tar.xz, cut it into pieces, and write their checksums; returns the pieces.

    Args:
        site: The folder.
        out: Folder of the pieces; those of before are removed.
        piece_mib: Most MiB of a piece.
        level: How hard to compress, 0 to 9.
    """
    for old in out.glob("piece-*"):
        old.unlink()
    tar = ["tar", "-C", str(site), "-cf", "-", "."]
    xz = ["xz", "-T0", f"-{level}"]
    pieces: list[Path] = []
    sums: list[str] = []
    with (
        subprocess.Popen(tar, stdout=subprocess.PIPE) as packing,
        subprocess.Popen(xz, stdin=packing.stdout, stdout=subprocess.PIPE) as squeezing,
    ):
        assert squeezing.stdout is not None
        while content := squeezing.stdout.read(piece_mib * MIB):
            piece = out / f"piece-{len(pieces):02}"
            piece.write_bytes(content)
            pieces.append(piece)
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {piece.name}\n")
    if packing.returncode or squeezing.returncode:
        raise SystemExit("tar or xz failed")
    (out / "SHA256SUMS").write_text("".join(sums))
    return pieces


def main() -> None:
    """Make the bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--python", default="3.12", help="version of the host's Python")
    parser.add_argument("--host-has", default="", help="packages that the host has, with commas")
    parser.add_argument("--with-cuda", action="store_true", help="take CUDA's libraries too")
    parser.add_argument("--piece-mib", type=int, default=56)
    # Nearly all of it is compressed already: 9 minutes at level 6 save 14 MiB of 209.
    parser.add_argument("--level", type=int, default=1, help="how hard to compress, 0 to 9")
    arguments = parser.parse_args()
    pins = pins_of(LOCK.read_text(), environment_of(arguments.python))
    left_out: set[str] = {canonicalize_name(name) for name in arguments.host_has.split(",") if name}
    if not arguments.with_cuda:
        left_out |= {name for name in pins if CUDA.match(name)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        site = Path(scratch) / "site"
        names = fill(site, pins, arguments.python, left_out, roots())
        strip(site)
        pieces = cut(site, arguments.out, arguments.piece_mib, arguments.level)
    (arguments.out / "PYTHON").write_text(f"{arguments.python}\n")
    print(f"{len(names)} packages: {' '.join(names)}")
    for piece in pieces:
        print(f"{piece}: {piece.stat().st_size / MIB:.1f} MiB")


if __name__ == "__main__":
    main()
