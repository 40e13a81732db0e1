"""Builds the image and runs all of docker-compose.yml for real, from an empty store and without an image registry.

`make image-check` calls it, as root. docs/containers.md has what it needs. It works in a folder of its own, removes all
that it made, and writes a report: each line is one promise of the containers, with its bound and what was seen. The
checks are the functions named `check_…`; `PARTS` has them in their order.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import stand_in
from engine import CommandError, Engine, call

ROOT: Final = Path(__file__).parent.parent
PROJECT: Final = f"nestvec-check-{os.getpid()}"
# Names of its own, for an engine may have others' images of the usual ones.
TAG: Final = "localhost/nestvec-check:cpu"
GPU_TAG: Final = "localhost/nestvec-check:gpu"
BAKED_TAG: Final = "localhost/nestvec-check:baked"
TEXT: Final = "Matryoshka dolls nest."
NEEDED: Final = ("debootstrap", "apt-get", "dpkg", "tar", "git")
PACKAGES: Final = (
    "podman buildah runc debootstrap docker-compose netavark aardvark-dns iptables uidmap"
)
MIN_FREE_BYTES: Final = 6 * 10**9
GPU_IMAGE_BYTES: Final = 25 * 10**9
USER: Final = 10001
# As OpenShift runs containers: some user without an entry in /etc/passwd, in group 0.
ARBITRARY_USER: Final = "123456:0"

# What we put onto a base: 500 MB in all on one of 166 MB.
MAX_OWN_BYTES: Final = 334 * 10**6
MAX_REBUILD_S: Final = 20
MAX_PUSHED_BYTES: Final = 10 * 10**6
FIRST_START_S: Final = 90
WARM_START_S: Final = 15
KILLED_START_S: Final = 15
STOP_S: Final = 10
LOAD_CONNECTIONS: Final = 4
LOAD_INPUTS: Final = 16
REQUEST_TIMEOUT_S: Final = 60


@dataclass
class Report:
    """What was promised, and what was seen."""

    rows: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    failures: int = 0

    def note(self, promise: str, seen: object, *, bound: str = "", ok: bool | None = True) -> None:
        """Add a line; `ok` is None where nothing was asserted."""
        verdict = {True: "yes", False: "**NO**", None: "–"}[ok]
        self.failures += ok is False
        load = f"{os.getloadavg()[0]:.1f}"
        self.rows.append((promise, bound, str(seen), verdict, load))
        print(
            f"[{verdict}] {promise}: {seen} {f'({bound})' if bound else ''} load {load}", flush=True
        )

    def within(self, promise: str, seconds: float, bound_s: float) -> None:
        """Add a line about a time."""
        self.note(promise, f"{seconds:.1f} s", bound=f"≤ {bound_s} s", ok=seconds <= bound_s)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Note that a part of the check failed as a whole, and go on with the next one."""
        print(f"-- {name}", flush=True)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what was seen
            self.note(name, f"{type(error).__name__}: {error}".strip()[-1500:], ok=False)

    def markdown(self, engine: str) -> str:
        """Return the report as a page."""
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        lines = [
            f"# `make image-check`, {time.strftime('%Y-%m-%d')}",
            "",
            f"{engine}; {platform.freedesktop_os_release()['PRETTY_NAME']}; {os.cpu_count()} CPUs"
            f"{f' ({model[1]})' if model else ''}. The base images are stand-ins made of Debian packages. The load "
            "is the average of the last minute; times on a busy machine show the order of size.",
            "",
            "| promise | bound | seen | kept | load |",
            "|---|---|---|---|---|",
        ]
        escaped = (
            [cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in self.rows
        )
        lines += [f"| {' | '.join(row)} |" for row in escaped]
        lines += ["", f"{len(self.rows)} lines, {self.failures} promises broken.", ""]
        return "\n".join(lines)


@dataclass
class Check:
    """What all parts of the check share.

    Attributes:
        engine: Runs the containers.
        folder: Everything that is written.
        report: What was seen.
        variables: What docker-compose.yml takes from the environment.
        reference: The vector of a bare server.
        is_gpu_skipped: Whether the image for GPUs is not built even where there is room for it.
    """

    engine: Engine
    folder: Path
    report: Report
    variables: dict[str, str] = field(default_factory=dict)
    reference: list[float] = field(default_factory=list)
    is_gpu_skipped: bool = False

    @property
    def context(self) -> Path:
        """The files of the checkout that git knows, so that neither a `.env` nor a cache has a say."""
        return self.folder / "context"

    @property
    def url(self) -> str:
        """The server of Compose, by the host's port."""
        return f"http://127.0.0.1:{self.variables['NESTVEC_PORT']}"

    @property
    def server(self) -> str:
        """The container of the server of Compose."""
        return self.engine.container_of(PROJECT, "nestvec-cpu")

    def compose(self, *arguments: str, **variables: str) -> str:
        """Run docker-compose on the context."""
        return self.engine.compose(self.context, {**self.variables, **variables}, *arguments)

    def up(self, **variables: str) -> float:
        """Start the stack of the profile cpu; returns the seconds until it was ready."""
        began = time.monotonic()
        self.compose("--profile", "cpu", "up", "-d", "--no-build", **variables)
        wait_ready(self.url)
        return time.monotonic() - began

    def in_container(self, container: str, code: str) -> str:
        """Run Python in a container."""
        return self.engine("exec", container, "python", "-c", code).strip()


def free_port() -> int:
    """Return a port of the loopback address that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def get(url: str) -> str:
    """Return the body of a page, whatever its status."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Wait until something is so; returns the seconds that it took.

    Raises:
        TimeoutError: It was not so in time.
    """
    began = time.monotonic()
    while True:
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError, CommandError):
            if condition():
                return time.monotonic() - began
        if time.monotonic() - began > timeout_s:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.2)


def wait_ready(url: str, timeout_s: float = 240) -> float:
    """Wait until a server is ready."""

    def is_ready() -> bool:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)

    return wait_until(is_ready, timeout_s, f"{url} is ready")


def embed(url: str, key: str = "") -> tuple[int, list[float]]:
    """Embed the text; returns the status, and the vector where it is 200."""
    body = json.dumps({"input": TEXT}).encode()
    headers = {"content-type": "application/json"} | (
        {"authorization": f"Bearer {key}"} if key else {}
    )
    request = urllib.request.Request(f"{url}/v1/embeddings", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as answer:
            return answer.status, json.load(answer)["data"][0]["embedding"]
    except urllib.error.HTTPError as error:
        return error.code, []


def last_line(log: str) -> str:
    """Return the end of what a container said."""
    return (log.strip().splitlines() or ["nothing"])[-1][:200]


def difference(first: list[float], second: list[float]) -> float:
    """Return the largest difference of two vectors."""
    return max(abs(a - b) for a, b in zip(first, second, strict=True))


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
    seconds = engine.build(check.context, TAG, *options)
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
        file.write("\n# Changed by docker/check.py.\n")
    seconds = engine.build(check.context, TAG, *options)
    report.within("rebuild after a change of one .py", seconds, MAX_REBUILD_S)
    pushed = sum(bytes_ for digest, bytes_ in engine.layers(TAG).items() if digest not in layers)
    report.note(
        "layers that this change makes anew",
        f"{pushed / 1e6:.1f} MB",
        bound=f"< {MAX_PUSHED_BYTES / 1e6:.0f} MB",
        ok=0 < pushed < MAX_PUSHED_BYTES,
    )


def check_first_start(check: Check) -> None:
    """The stack starts with empty volumes, answers as a bare server does, and Prometheus reads its metrics."""
    report = check.report
    report.within("first start, the model fetched and exported", check.up(), FIRST_START_S)
    status, vector = embed(check.url)
    worst = difference(vector, check.reference)
    report.note(
        "vector as a bare server's", f"{status}, {worst:.1e}", bound="≤ 1e-6", ok=worst <= 1e-6
    )
    prometheus = f"http://127.0.0.1:{check.variables['PROMETHEUS_PORT']}/api/v1"

    def is_up() -> bool:
        targets = json.loads(get(f"{prometheus}/targets"))["data"]["activeTargets"]
        return [target["health"] for target in targets] == ["up"]

    def is_seen_ready() -> bool:
        result = json.loads(get(f"{prometheus}/query?query=nestvec_ready"))["data"]["result"]
        return [sample["value"][1] for sample in result] == ["1"]

    report.note("Prometheus: target up", f"{wait_until(is_up, 60, 'target up'):.1f} s")
    report.note(
        "Prometheus: nestvec_ready is 1", f"{wait_until(is_seen_ready, 60, 'nestvec_ready'):.1f} s"
    )


def health_of(check: Check, container: str) -> bool:
    """Whether a container's own health check says that it is well."""
    if not check.engine.is_podman:  # the daemon runs it by itself
        state = check.engine.inspect(container)["State"]
        return bool(state["Health"]["Status"] == "healthy")
    try:
        check.engine("healthcheck", "run", container)
    except CommandError:
        return False
    return True


def check_confinement(check: Check) -> None:
    """The server's process has no rights, its container bounds, and its log says what an operator can use."""
    report, server = check.report, check.server
    wait_until(lambda: health_of(check, server), 30, "the health check passes")
    report.note("the health check passes", "healthy")
    status = (
        Path("/proc") / str(check.engine.inspect(server)["State"]["Pid"]) / "status"
    ).read_text()
    wanted = {
        "Uid": str(USER),
        "CapEff": "0000000000000000",
        "CapBnd": "0000000000000000",
        "NoNewPrivs": "1",
    }
    for name, value in wanted.items():
        seen = re.search(rf"^{name}:\s+(\S+)", status, re.MULTILINE)
        report.note(
            f"process: {name}",
            seen[1] if seen else None,
            bound=value,
            ok=seen is not None and seen[1] == value,
        )
    write = (
        "import pathlib\ntry: pathlib.Path('/x').touch()\nexcept OSError as e: print(e.strerror)"
    )
    refused = check.in_container(server, write)
    report.note("writing to the root", refused, ok=refused == "Read-only file system")
    room = "import os; s = os.statvfs('/tmp'); print(s.f_frsize * s.f_blocks)"
    bytes_ = int(check.in_container(server, room))
    report.note(
        "size of /tmp", f"{bytes_ / 2**20:.0f} MiB", bound="256 MiB", ok=bytes_ == 256 * 2**20
    )
    host = check.engine.inspect(server)["HostConfig"]
    memory, pids = host["Memory"], host["PidsLimit"]
    report.note(
        "memory and process limits", f"{memory} B, {pids}", ok=memory > 0 and 0 < pids < 10_000
    )
    rotation = host["LogConfig"]
    if check.engine.is_podman:  # which keeps one file of a size
        size, files = rotation["Size"], "1"
    else:
        size, files = rotation["Config"]["max-size"], rotation["Config"]["max-file"]
    report.note("log rotation", f"{files} × {size}", ok=size in ("20m", "20MB"))
    log = check.engine("logs", server)
    report.note(
        "the banner's address",
        "127.0.0.1",
        ok="curl http://127.0.0.1:8080" in log and "0.0.0.0" not in log,
    )
    report.note(
        "alembic's own lines in the log", log.count('"alembic'), bound="0", ok='"alembic' not in log
    )


def check_restarts(check: Check) -> None:
    """The server is back in time after a restart, and after its process was killed."""
    engine, report, server = check.engine, check.report, check.server
    began = time.monotonic()
    engine("restart", "--time", "40", server)
    wait_ready(check.url)
    report.within(
        "restart with a warm volume, the drain included", time.monotonic() - began, WARM_START_S
    )
    before = engine.inspect(server)["State"]["Pid"]
    began = time.monotonic()
    os.kill(before, signal.SIGKILL)
    wait_until(
        lambda: engine.inspect(server)["State"]["Pid"] not in (0, before), 60, "a new process"
    )
    wait_ready(check.url)
    report.within("kill -9, then ready again", time.monotonic() - began, KILLED_START_S)


def make_load(address: str, statuses: list[int | str], end: threading.Event) -> None:
    """Send requests, each on a connection of its own, until the port is closed or it is over."""
    body = json.dumps({"input": [f"{TEXT} {number}" for number in range(LOAD_INPUTS)]})
    while not end.is_set():
        connection = HTTPConnection(address, 8080, timeout=REQUEST_TIMEOUT_S)
        try:
            connection.connect()
        except OSError:
            return  # nothing was sent, so nothing is lost
        try:
            connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        except Exception as error:  # noqa: BLE001 - any end but an answer is a lost one
            statuses.append(type(error).__name__)
        finally:
            connection.close()


def check_stop_under_load(check: Check) -> None:
    """A stop under load answers what it took, and ends in time with status 0."""
    engine, report, server = check.engine, check.report, check.server
    networks = engine.inspect(server)["NetworkSettings"]["Networks"]
    # The container's own address: a proxy on the host's port might take connections that nobody serves.
    address = next(iter(networks.values()))["IPAddress"]
    statuses: list[int | str] = []
    end = threading.Event()
    threads = [
        threading.Thread(target=make_load, args=(address, statuses, end))
        for _ in range(LOAD_CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(statuses) >= 2 * LOAD_CONNECTIONS, 60, "load")
    began, before = time.monotonic(), len(statuses)
    engine("stop", "--time", "40", server)
    seconds = time.monotonic() - began
    end.set()
    for thread in threads:
        thread.join(REQUEST_TIMEOUT_S)
    report.within("stop under load", seconds, STOP_S)
    others = [status for status in statuses if status != 200]
    seen = others or f"{len(statuses)} answers 200 ({len(statuses) - before} after the stop began)"
    report.note("answers under load, none lost", seen, ok=not others and len(statuses) > before)
    code = engine.inspect(server)["State"]["ExitCode"]
    report.note("exit status", code, bound="0", ok=code == 0)


EMBED_INSIDE: Final = (
    "import json, urllib.request as u\n"
    f"r = u.Request('http://127.0.0.1:8080/v1/embeddings', json.dumps({{'input': {TEXT!r}}}).encode(), "
    "{'content-type': 'application/json'})\n"
    "print(json.dumps(json.load(u.urlopen(r, timeout=60))['data'][0]['embedding']))"
)
# As docker-compose.yml has it.
CONFINED: Final = (
    *("--read-only", "--tmpfs", "/tmp:size=256m", "--cap-drop", "all"),
    *("--security-opt", "no-new-privileges", "--env", "NESTVEC_ALLOW_UNAUTHENTICATED=true"),
)


def check_ready_alone(check: Check, promise: str, *arguments: str) -> None:
    """A container of the image, started by hand, becomes ready and answers."""
    with check.engine.running(f"{PROJECT}-alone", *CONFINED, *arguments) as name:
        try:
            seconds = wait_until(lambda: health_of(check, name), 120, "ready")
        except TimeoutError:
            raise CommandError(check.engine("logs", name)[-1000:]) from None
        vector = json.loads(check.in_container(name, EMBED_INSIDE))
        check.report.note(promise, f"ready after {seconds:.1f} s, {len(vector)} dimensions")


def check_offline(check: Check) -> None:
    """With its volume the server starts without any network; the stack starts again, with HTTP processes of its own."""
    engine, report = check.engine, check.report
    check_ready_alone(
        check,
        "no network at all, the volume kept",
        "--network",
        "none",
        "-v",
        f"{PROJECT}_models:/models",
        TAG,
    )
    check.compose("--profile", "cpu", "stop", "-t", "40")
    seconds = check.up(NESTVEC_OFFLINE="true", NESTVEC_HTTP_PROCESSES="2")
    report.note(
        "second start, NESTVEC_OFFLINE=true, two HTTP processes", f"ready after {seconds:.1f} s"
    )
    processes = (
        engine("top", check.server, "pid", "args")
        if engine.is_podman
        else engine("top", check.server)
    )
    count = processes.count("/opt/nestvec/bin/python")
    report.note("its processes", count, bound="≥ 4", ok=count >= 4)
    worst = difference(embed(check.url)[1], check.reference)
    report.note("its vector as a bare server's", f"{worst:.1e}", bound="≤ 1e-6", ok=worst <= 1e-6)


def check_keys(check: Check) -> None:
    """Once there are keys, nothing that Compose sets opens the server again."""
    engine, report, server = check.engine, check.report, check.server
    printed = engine("exec", server, "nestvec", "keys", "add", "check")
    key = next(word for word in printed.split() if len(word) > 30)
    wait_until(lambda: embed(check.url)[0] == 401, 10, "a key is asked for")
    with_key = embed(check.url, key)[0]
    report.note("with keys: without one, with one", f"401, {with_key}", ok=with_key == 200)
    check.in_container(server, "import os; os.unlink('/data/keys.json')")
    engine("restart", "--time", "40", server)
    time.sleep(8)
    with contextlib.suppress(OSError, CommandError):
        status = embed(check.url)[0]
        report.note(
            "with keys, their file lost: the server stays shut", status, ok=status in (401, 503)
        )
        return
    report.note("with keys, their file lost: the server stays shut", "does not start")


def check_failed_model(check: Check) -> None:
    """A model that cannot be had ends `up` before the server starts, and is not tried again."""
    check.compose("--profile", "cpu", "rm", "--stop", "--force", "nestvec-cpu", "model-cpu")
    try:
        check.compose("--profile", "cpu", "up", "-d", "--no-build", NESTVEC_MODEL="no-such-model")
        ended = False
    except CommandError:
        ended = True
    check.report.note("a model that cannot be had ends `up`", ended, ok=ended)
    model = check.engine.container_of(PROJECT, "model-cpu")
    state, log = check.engine.inspect(model), check.engine("logs", model)
    tries = state["RestartCount"]
    check.report.note("and is tried again", f"{tries} times", bound="0", ok=tries == 0)
    check.report.note("its log says why", last_line(log), ok="'no-such-model' is no card" in log)
    try:
        running = check.engine.inspect(check.server)["State"]["Running"]
    except IndexError:  # there is none
        running = False
    check.report.note("the server was started over it", running, bound="False", ok=not running)


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
        seen = re.sub(r"\s+", " ", asked[1]) if asked else "no device"
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
    engine = Engine(arguments.engine, folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        check = Check(engine, folder, report, is_gpu_skipped=arguments.no_gpu_image)
        run(check, arguments.stand_ins or folder / "stand-ins")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        version = call(arguments.engine, "--version").strip()
        target = arguments.report or ROOT / f"benchmarks/results/image-check-{arguments.engine}.md"
        target.write_text(report.markdown(version))
        print(f"{target}: {report.failures} promises broken")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
