"""An engine process for each of several devices, as real processes; here all devices are the CPU."""

import contextlib
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.server import command, environment, running_server

pytestmark = pytest.mark.process


def test_two_engines_share_the_calls_and_one_serves_on_when_the_other_dies(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Every call is answered by either engine with the same vector, and a dead engine comes back."""
    with running_server(
        tmp_path, model=tiny_folder, http_processes=1, device_ids="0,1", vector_cache_bytes=0
    ) as server:
        _until(lambda: 'role="core-1"' in httpx.get(f"{server.url}/metrics").text)

        def embed(_: int) -> tuple[float, ...]:
            body = {"input": "alpha beta"}
            answer = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60)
            assert answer.status_code == httpx.codes.OK, answer.text
            return tuple(answer.json()["data"][0]["embedding"])

        with ThreadPoolExecutor(8) as pool:
            before = list(pool.map(embed, range(60)))
            victims = _engine_processes(_children(server.process.pid))
            assert len(victims) == 2
            os.kill(victims[1], signal.SIGKILL)
            after = list(pool.map(embed, range(60)))
        assert len(set(before + after)) == 1
        _until(lambda: len(_engine_processes(_children(server.process.pid))) == 2)
        assert server.terminate() == 0


def test_several_devices_need_processes_of_their_own(tmp_path: Path) -> None:
    """Devices without processes, and a device named twice, are refused before anything is loaded."""
    done = subprocess.run(
        command("serve"),
        env=environment(device_ids="0,0", data_dir=tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "set http_processes to 1 or more" in done.stderr
    assert "named twice" in done.stderr


def _children(pid: int) -> list[int]:
    """Ids of the processes that a server has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children]


def _engine_processes(pids: list[int]) -> list[int]:
    """Those of some processes that run models: they alone have loaded the runtime."""
    return [pid for pid in pids if "onnxruntime_pybind11" in Path(f"/proc/{pid}/maps").read_text()]


def _until(condition: object, within_s: float = 60.0) -> None:
    """Wait for a condition."""
    assert callable(condition)
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def test_once_the_server_says_that_it_is_ready_nobody_is_told_that_it_is_not(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """A process takes connections only when it can answer, also when it is started again."""
    with running_server(tmp_path, model=tiny_folder, http_processes=3) as server:
        deadline = time.monotonic() + 6.0
        answered, killed = 0, False
        # A busy machine answers fewer in that time, and must not fail for it.
        while time.monotonic() < deadline or answered <= 40:
            with contextlib.suppress(httpx.TransportError):  # to the killed process
                answer = httpx.post(
                    f"{server.url}/v1/embeddings", json={"input": "alpha"}, timeout=30
                )
                assert answer.status_code == httpx.codes.OK, answer.text
                answered += 1
            if not killed and answered >= 20:
                http_processes = set(_children(server.process.pid)) - set(
                    _engine_processes(_children(server.process.pid))
                )
                os.kill(max(http_processes), signal.SIGKILL)
                killed = True
        assert killed
