"""Checks of the running stack of the profile cpu: start, confinement, restarts, stop, keys."""

import contextlib
import json
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Final

from engine import CommandError
from probes import (
    REQUEST_TIMEOUT_S,
    difference,
    embed,
    get,
    last_line,
    make_load,
    wait_ready,
    wait_until,
)
from stack import PROJECT, TAG, USER, Check, check_ready_alone, health_of

FIRST_START_S: Final = 90
WARM_START_S: Final = 15
KILLED_START_S: Final = 15
STOP_S: Final = 10
LOAD_CONNECTIONS: Final = 4


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
        "the address in the log",
        "127.0.0.1",
        ok='"url": "http://127.0.0.1:8080"' in log and "0.0.0.0" not in log,
    )
    report.note(
        "alembic's own lines in the log", log.count('"alembic'), bound="0", ok='"alembic' not in log
    )


def check_restarts(check: Check) -> None:
    """The server is back in time after a restart, and after its process was killed."""
    engine, report, server = check.engine, check.report, check.server
    began = time.monotonic()
    engine("restart", "-t", "40", server)
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
    engine("stop", "-t", "40", server)
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
    engine, report = check.engine, check.report
    check.up(NESTVEC_API_KEYS="of-the-check")
    seen = [embed(check.url, key)[0] for key in ("", "of-the-check")]
    report.note("NESTVEC_API_KEYS: without a key, with it", seen, ok=seen == [401, 200])
    check.compose("--profile", "cpu", "up", "-d", "--no-build")
    wait_until(
        lambda: "has had keys" in engine("logs", check.server), 60, "it says why it does not start"
    )
    report.note(
        "the variable forgotten: the server stays shut", last_line(engine("logs", check.server))
    )
    data = Path(engine.inspect(f"{PROJECT}_data", kind="volume")["Mountpoint"])
    (data / "api-keys-required").unlink()
    check.up()
    server = check.server
    printed = engine("exec", server, "nestvec", "keys", "add", "check")
    key = next(word for word in printed.split() if len(word) > 30)
    wait_until(lambda: embed(check.url)[0] == 401, 10, "a key is asked for")
    with_key = embed(check.url, key)[0]
    report.note("with keys: without one, with one", f"401, {with_key}", ok=with_key == 200)
    check.in_container(server, "import os; os.unlink('/data/keys.json')")
    engine("restart", "-t", "40", server)
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
    check.report.note("its log says why", last_line(log), ok="no model 'no-such-model'" in log)
    try:
        running = check.engine.inspect(check.server)["State"]["Running"]
    except IndexError:  # there is none
        running = False
    check.report.note("the server was started over it", running, bound="False", ok=not running)
