"""Checks of the images: how they are built, how large they are, as whom and with what they run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import stand_in
from engine import CommandError, call
from probes import embed, free_port, last_line, wait_ready, wait_until
from stack import (
    ARBITRARY_USER,
    BAKED_TAG,
    CONFINED,
    GPU_TAG,
    PROJECT,
    ROOT,
    TAG,
    USER,
    Check,
    check_ready_alone,
)

GPU_IMAGE_BYTES: Final = 25 * 10**9
# What we put onto a base: 500 MB in all on one of 166 MB.
MAX_OWN_BYTES: Final = 334 * 10**6
MAX_REBUILD_S: Final = 20
MAX_PUSHED_BYTES: Final = 10 * 10**6


def check_bare_server(check: Check) -> None:
    """A server of this checkout without a container gives the vector to compare with."""
    port = free_port()
    env = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("NESTVEC_") or k == "NESTVEC_CACHE_DIR"
    }
    env |= {
        "NESTVEC_PORT": str(port),
        "NESTVEC_DATA_DIR": str(check.folder / "bare"),
        "NESTVEC_OFFLINE": "true",
    }
    with (check.folder / "bare.log").open("wb") as log:
        command = [sys.executable, "-m", "nestvec", "serve"]
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=ROOT)
    try:
        wait_ready(f"http://127.0.0.1:{port}")
        check.reference = embed(f"http://127.0.0.1:{port}")[1]
    finally:
        process.terminate()
        process.wait(30)
    check.report.note(
        "a bare server of this checkout answers", f"{len(check.reference)} dimensions"
    )


def check_build(check: Check) -> None:
    """The image builds from nothing, is small, and a change of our code changes little of it."""
    engine, report = check.engine, check.report
    base = f"PYTHON_IMAGE={stand_in.PYTHON_TAG}"
    options = ("--target", "cpu", "--build-arg", base)
    seconds = engine.build(
        check.context, TAG, *options, "--no-cache"
    )  # of builds before this check
    report.note("the image for CPUs builds from an empty store", f"{seconds:.0f} s")
    layers = engine.layers(TAG)
    size, base_size = sum(layers.values()), sum(engine.layers(stand_in.PYTHON_TAG).values())
    report.note("size of the image", f"{size / 1e6:.0f} MB", ok=None)
    own = size - base_size
    report.note(
        f"its size without the base of {base_size / 1e6:.0f} MB",
        f"{own / 1e6:.0f} MB",
        bound=f"≤ {MAX_OWN_BYTES / 1e6:.0f} MB",
        ok=own <= MAX_OWN_BYTES,
    )
    health = engine.inspect(TAG, kind="image")
    has_health = "Healthcheck" in json.dumps(health)
    report.note("the image has a health check", has_health, ok=has_health)
    with (check.context / "app/nestvec/__init__.py").open("a") as file:
        file.write("\n# Changed by docker/check.\n")
    seconds = engine.build(check.context, TAG, *options)
    report.within("rebuild after a change of one .py", seconds, MAX_REBUILD_S)
    pushed = sum(bytes_ for digest, bytes_ in engine.layers(TAG).items() if digest not in layers)
    report.note(
        "layers that this change makes anew",
        f"{pushed / 1e6:.1f} MB",
        bound=f"< {MAX_PUSHED_BYTES / 1e6:.0f} MB",
        ok=0 < pushed < MAX_PUSHED_BYTES,
    )


def check_users(check: Check) -> None:
    """Volumes can be written by any user in group 0; a bind mount by its owner, and else the message says so."""
    few = ("--env", "NESTVEC_MODEL=static")
    promise = f"new volumes, user {ARBITRARY_USER}"
    check_ready_alone(check, promise, "--user", ARBITRARY_USER, *few, TAG)
    models = Path(check.engine.inspect(f"{PROJECT}_models", kind="volume")["Mountpoint"])
    bind = check.folder / "bind"
    shutil.copytree(models, bind / "models", symlinks=True)
    (bind / "data").mkdir()
    call("chown", "-R", f"{USER}:{USER}", bind)
    mounts = ("-v", f"{bind}/models:/models", "-v", f"{bind}/data:/data")
    check_ready_alone(check, f"bind mounts of user {USER}", "--network", "none", *mounts, TAG)
    (bind / "root").mkdir(mode=0o755)
    name = f"{PROJECT}-refused"
    with check.engine.running(name, *CONFINED, "-v", f"{bind}/root:/models", TAG):
        wait_until(lambda: not check.engine.inspect(name)["State"]["Running"], 60, "it ends")
        log, code = check.engine("logs", name), check.engine.inspect(name)["State"]["ExitCode"]
    said = "/models" in log and "cannot be written" in log and code == 1
    check.report.note("a bind mount of root's", f"status {code}: {last_line(log)}", ok=said)


def check_gpu_profile(check: Check) -> None:
    """Compose makes the containers of the profile gpu, and asks the engine for GPUs and nothing else of the driver."""
    check.engine("tag", TAG, GPU_TAG)
    # One after the other: with --no-start docker-compose 1.29 would wait for the end of the first for ever.
    for service in ("model-gpu", "nestvec-gpu"):
        line = ("--verbose", "--profile", "gpu", "up", "--no-start", "--no-build", "--no-deps")
        try:
            printed, outcome = check.compose(*line, service), "made"
        except (
            CommandError
        ) as error:  # an engine without NVIDIA's runtime may refuse; what was asked is what counts
            printed, outcome = str(error), "refused by the engine"
        asked = re.search(r"'DeviceRequests': (\[\{.*?\}\])", printed.replace("\n", " "))
        if asked:  # docker-compose 1.29 says what it sends
            seen = re.sub(r"\s+", " ", asked[1])
        else:
            services = json.loads(check.compose("--profile", "gpu", "config", "--format", "json"))[
                "services"
            ]
            seen = str(services[service]["deploy"]["resources"]["reservations"]["devices"])
        ok = "'gpu'" in seen and "'utility'" not in seen and "-1" in seen
        check.report.note(
            f"profile gpu, {service}: what Compose asks for", f"{seen}; {outcome}", ok=ok
        )


def check_baked(check: Check) -> None:
    """A model that was baked in needs no network at the first start."""
    options = ("--target", "cpu", "--build-arg", f"PYTHON_IMAGE={stand_in.PYTHON_TAG}")
    seconds = check.engine.build(
        check.context, BAKED_TAG, *options, "--build-arg", "BAKED_MODEL=static"
    )
    check.report.note("an image with a model baked in", f"built in {seconds:.0f} s")
    baked = ("--network", "none", "--env", "NESTVEC_MODEL=static", "--env", "NESTVEC_OFFLINE=true")
    check_ready_alone(check, "it starts without a network", *baked, BAKED_TAG)


def check_gpu_image(check: Check) -> None:
    """The image for GPUs builds, where there is room for it."""
    free = shutil.disk_usage(check.folder).free
    if check.is_gpu_skipped:
        check.report.note("the image for GPUs", "not built, as --no-gpu-image says", ok=None)
        return
    if free < GPU_IMAGE_BYTES:
        check.report.note(
            "the image for GPUs",
            f"not built: it needs 25 GB, {free / 1e9:.0f} GB are free",
            ok=None,
        )
        return
    options = ("--target", "gpu", "--build-arg", f"PYTHON_IMAGE={stand_in.PYTHON_TAG}")
    seconds = check.engine.build(check.context, GPU_TAG, *options)
    size = sum(check.engine.layers(GPU_TAG).values())
    check.report.note("the image for GPUs builds", f"{seconds:.0f} s, {size / 1e9:.1f} GB")
