"""Builds the image and runs all of docker-compose.yml for real, from an empty store and without an image registry.

`make image-check` calls it, as root. docs/deployment/containers.md has what it needs. It works in a folder of its own,
removes all that it made, and writes a report: each line is one promise of the containers, with its bound and what was
seen. The checks are the functions named `check_…`; `PARTS` has them in their order.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import stand_in
from engine import CommandError, Engine, call
from image_checks import (
    check_baked,
    check_bare_server,
    check_build,
    check_gpu_image,
    check_gpu_profile,
    check_users,
)
from probes import free_port
from report import Report
from stack import BAKED_TAG, GPU_TAG, PROJECT, ROOT, TAG, Check
from stack_checks import (
    check_confinement,
    check_failed_model,
    check_first_start,
    check_keys,
    check_offline,
    check_restarts,
    check_stop_under_load,
)

NEEDED: Final = ("debootstrap", "apt-get", "dpkg", "tar", "git")
PACKAGES: Final = (
    "podman buildah runc debootstrap docker-compose netavark aardvark-dns iptables uidmap"
)
MIN_FREE_BYTES: Final = 6 * 10**9


def prepare(check: Check, stand_ins: Path) -> None:
    """Copy the checkout, start the engine, make the base images."""
    listed = call("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (check.context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, check.context / name)
    images = {"cpu": TAG, "gpu": GPU_TAG}
    services = {
        f"{name}-{kind}": {"image": tag}
        for kind, tag in images.items()
        for name in ("model", "nestvec")
    }
    (check.context / "docker-compose.override.yml").write_text(json.dumps({"services": services}))
    check.engine.start()
    began = time.monotonic()
    stand_in.make_archives(stand_ins, check.folder)
    stand_in.load_images(check.engine, stand_ins)
    check.report.note("base images made of Debian packages", f"{time.monotonic() - began:.0f} s")
    check.variables = {
        "NESTVEC_PORT": str(free_port()),
        "PROMETHEUS_PORT": str(free_port()),
        "COMPOSE_PROJECT_NAME": PROJECT,
        "PROMETHEUS_IMAGE": stand_in.PROMETHEUS_TAG,
    }


PARTS: Final = (
    check_bare_server,
    check_build,
    check_first_start,
    check_confinement,
    check_restarts,
    check_stop_under_load,
    check_offline,
    check_users,
    check_keys,
    check_failed_model,
    check_gpu_profile,
    check_baked,
    check_gpu_image,
)


def run(check: Check, stand_ins: Path) -> None:
    """Run all parts, and remove what they made."""
    try:
        prepare(check, stand_ins)
        for part in PARTS:
            with check.report.part((part.__doc__ or "").split("\n")[0]):
                part(check)
    finally:
        with contextlib.suppress(CommandError, subprocess.TimeoutExpired, OSError):
            check.compose("--profile", "cpu", "--profile", "gpu", "down", "-v", "-t", "5")
        check.engine.close(TAG, GPU_TAG, BAKED_TAG, stand_in.PYTHON_TAG, stand_in.PROMETHEUS_TAG)


def problems(engine: str, folder: Path) -> list[str]:
    """Return what is missing here, with the way out."""
    found = []
    if os.geteuid() != 0:
        found.append("it needs root: debootstrap and the engine's networks do")
    missing = [name for name in (engine, *NEEDED) if shutil.which(name) is None]
    if shutil.which("docker-compose") is None and engine == "podman":
        missing.append("docker-compose")
    if missing:
        found.append(
            f"{', '.join(missing)} not found; on Debian: apt-get install --no-install-recommends {PACKAGES}"
        )
    if shutil.disk_usage(folder).free < MIN_FREE_BYTES:
        found.append(f"it needs {MIN_FREE_BYTES / 1e9:.0f} GB in {folder}")
    return found


def main() -> int:
    """Check the containers; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--engine", choices=("podman", "docker"), default="podman")
    parser.add_argument("--compose", default="", help="default: docker-compose of PATH")
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/tmp"), help="where its own folder is made"
    )
    parser.add_argument(
        "--stand-ins", type=Path, help="keep the base images' archives here, or take them from here"
    )
    parser.add_argument(
        "--report", type=Path, help="default: benchmarks/results/image-check-ENGINE.md"
    )
    parser.add_argument(
        "--no-gpu-image", action="store_true", help="do not build it, whatever room there is"
    )
    arguments = parser.parse_args()
    missing = problems(arguments.engine, arguments.folder)
    if missing:
        print("\n".join(missing), file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="nestvec-image-check-", dir=arguments.folder))
    report = Report()
    engine = Engine(arguments.engine, folder, arguments.compose)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        version = engine.version
        check = Check(engine, folder, report, is_gpu_skipped=arguments.no_gpu_image)
        run(check, arguments.stand_ins or folder / "stand-ins")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    target = arguments.report or ROOT / f"benchmarks/results/image-check-{arguments.engine}.md"
    target.write_text(report.markdown(version))
    print(f"{target}: {report.failures} promises broken")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
