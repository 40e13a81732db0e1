"""HTTP processes that are stopped or blocked, a supervisor that is killed, a machine that stands still."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from nestvec.system.processes import ProcessId

from tests.end_to_end.chaos.conftest import Report
from tests.support.process_tree import (
    block_on_signal,
    children,
    engine_processes,
    http_processes,
    until,
)
from tests.support.server import RunningServer, running_server
from tests.support.tiny import write_tiny_bert

pytestmark = [pytest.mark.process, pytest.mark.load]
# As it is by default, and what the supervisor and a start of a process may add on a busy machine.
HANG_TIMEOUT_S = 10.0
SPARE_S = 15.0


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Settings of a server whose processes block their event loop at SIGUSR1."""
    for name, value in block_on_signal(tmp_path / "site").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    model = write_tiny_bert(tmp_path / "model")
    return {"model": model, "cache_dir": tmp_path / "cache", "http_processes": 1}


def embed(server: RunningServer) -> int:
    """Ask for a vector on a connection of its own."""
    return httpx.post(f"{server.url}/embed", json={"inputs": "alpha"}, timeout=90).status_code


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGUSR1])
def test_the_only_one_that_hangs_is_replaced(
    settings: dict[str, object], tmp_path: Path, number: int, report: Report
) -> None:
    """Whoever connects meanwhile waits, and is answered by the next one."""
    with running_server(tmp_path, **settings) as server:
        (victim,) = http_processes(server)
        os.kill(victim, number)
        hung_s = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: _status_or_cut(server), range(8)))
        took_s = time.monotonic() - hung_s
        assert embed(server) == httpx.codes.OK
        assert httpx.get(f"{server.url}/health/ready").status_code == httpx.codes.OK
        assert victim not in http_processes(server)
        text = httpx.get(f"{server.url}/metrics").text
        assert 'nestvec_process_hangs_total{role="front-0"} 1.0' in text
        assert 'nestvec_process_restarts_total{role="front-0"} 1.0' in text
        assert server.terminate() == 0
    report(
        f"the only HTTP process hangs ({signal.Signals(number).name})",
        f"answered again after {took_s:.1f} s; connections of meanwhile: {sorted(statuses)}",
    )
    # What the blocked one had already taken is cut off.
    assert set(statuses) <= {httpx.codes.OK, 0}
    assert took_s < HANG_TIMEOUT_S + SPARE_S


def test_one_of_two_that_is_stopped_is_replaced(
    settings: dict[str, object], tmp_path: Path, report: Report
) -> None:
    """Within the default time, while the other one answers everybody else."""
    with running_server(tmp_path, **{**settings, "http_processes": 2}) as server:
        until(lambda: len(http_processes(server)) == 2)
        time.sleep(2)  # a process that is still loading may be silent for longer
        victim = http_processes(server)[0]
        os.kill(victim, signal.SIGSTOP)
        hung_s, good = time.monotonic(), 0
        while Path(f"/proc/{victim}").exists():
            assert embed(server) == httpx.codes.OK
            good += 1
            assert time.monotonic() - hung_s < HANG_TIMEOUT_S + SPARE_S
        took_s = time.monotonic() - hung_s
        assert took_s > HANG_TIMEOUT_S - 1
        until(lambda: len(http_processes(server)) == 2)
        assert server.logs().count("http_process_hangs") == 1
        assert server.terminate() == 0
    report(
        "one of two HTTP processes is stopped",
        f"killed after {took_s:.1f} s; {good} x 200 meanwhile",
    )


def test_a_machine_that_stands_still_kills_nothing(
    settings: dict[str, object], tmp_path: Path
) -> None:
    """A paused container, where supervisor and processes stand still together, goes on as it was."""
    chosen = {**settings, "http_processes": 2, "http_hang_timeout_s": 1}
    with running_server(tmp_path, **chosen) as server:
        pids = [server.process.pid, *http_processes(server), *engine_processes(server)]
        assert len(pids) == 4
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(7)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        time.sleep(2.5)
        assert embed(server) == httpx.codes.OK
        assert "hangs" not in server.logs()
        assert "process_died" not in server.logs()
        assert server.terminate() == 0


def test_a_killed_supervisor_leaves_nothing_behind_at_the_next_start(
    settings: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    report: Report,
) -> None:
    """Not even where a process of it is stopped, and holds the port; a server beside it is not touched."""
    (tmp_path / "neighbour").mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    with (
        running_server(tmp_path / "neighbour", **settings) as neighbour,
        running_server(tmp_path, **{**settings, "http_processes": 2}) as server,
    ):
        neighbours = children(neighbour.process.pid)
        left = [ProcessId.of(pid) for pid in children(server.process.pid)]
        first = set((tmp_path / "run").iterdir())
        os.kill(http_processes(server)[0], signal.SIGSTOP)
        server.process.kill()
        server.process.wait()
        started_s = time.monotonic()
        port = httpx.URL(server.url).port
        with running_server(tmp_path, **settings, port=port) as anew:
            took_s = time.monotonic() - started_s
            assert not any(process is not None and process.is_alive() for process in left)
            now = set((tmp_path / "run").iterdir())
            assert len(now) == 2
            assert len(now & first) == 1
            assert children(neighbour.process.pid) == neighbours
            assert embed(neighbour) == httpx.codes.OK
            assert embed(anew) == httpx.codes.OK
            assert anew.terminate() == 0
        assert neighbour.terminate() == 0
    assert not list((tmp_path / "run").iterdir())
    report(
        "supervisor killed -9 with a stopped HTTP process, started again at once on its port",
        f"ready after {took_s:.1f} s; nothing left behind",
    )


def test_a_folder_that_cannot_be_made_anew_ends_the_server_at_the_next_death(
    settings: dict[str, object], tmp_path: Path
) -> None:
    """What runs goes on; a server that could only start one process after the other in vain ends, and says why."""
    with running_server(tmp_path, **settings, drain_timeout_s=1) as server:
        run = tmp_path / "data" / "run"
        shutil.rmtree(run)
        run.write_text("")  # no folder can be there any more
        time.sleep(2.5)
        assert embed(server) == httpx.codes.OK
        assert httpx.get(f"{server.url}/metrics").status_code == httpx.codes.OK
        assert server.logs().count('"event": "runtime_folder_lost"') == 1
        (engine,) = engine_processes(server)
        os.kill(engine, signal.SIGKILL)
        assert server.process.wait(60) == 1
        assert server.logs().count('"event": "process_died"') == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system: needs root")
def test_a_full_disk_under_the_run_time_files_kills_nothing(
    settings: dict[str, object], tmp_path: Path
) -> None:
    """What is mapped has its room from the start, so that no page is missing later."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a file system here")
    try:
        with running_server(tmp_path, **settings, data_dir=disk / "data") as server:
            assert embed(server) == httpx.codes.OK
            _fill(disk / "filler")
            for number in range(50):
                httpx.post(f"{server.url}/v1/embeddings", json={"input": f"alpha {number}"})
                httpx.get(f"{server.url}/health/live?{number}")
            assert httpx.get(f"{server.url}/metrics").status_code == httpx.codes.OK
            (engine,) = engine_processes(server)
            os.kill(engine, signal.SIGKILL)
            assert embed(server) == httpx.codes.OK
            assert server.logs().count("process_died") == 1
            assert server.terminate() == 0
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


def _fill(path: Path) -> None:
    """Write a file until its disk is full."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def _status_or_cut(server: RunningServer) -> int:
    try:
        return embed(server)
    except httpx.TransportError:
        return 0
