"""An engine process for each of several devices, as real processes; here the devices are all the CPU."""

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


def test_two_cores_share_the_calls_and_one_serves_on_when_the_other_dies(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Every call is answered, by either, with the same vector; the dead one comes back."""
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
            victims = _cores(_children(server.process.pid))
            assert len(victims) == 2
            os.kill(victims[1], signal.SIGKILL)
            after = list(pool.map(embed, range(60)))
        assert len(set(before + after)) == 1
        _until(lambda: len(_cores(_children(server.process.pid))) == 2)
        assert server.terminate() == 0


def test_several_devices_need_processes_of_their_own(tmp_path: Path) -> None:
    """Said before anything is loaded."""
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
    """Processes that a server has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in children]


def _cores(pids: list[int]) -> list[int]:
    """Those that run models: they alone have loaded the runtime."""
    return [pid for pid in pids if "onnxruntime_pybind11" in Path(f"/proc/{pid}/maps").read_text()]


def _until(condition: object, within_s: float = 60.0) -> None:
    """Wait for something."""
    assert callable(condition)
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def test_once_the_server_says_that_it_is_ready_nobody_is_told_that_it_is_not(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """A process takes connections when it can answer, at the start and when it is started again."""
    with running_server(tmp_path, model=tiny_folder, http_processes=3) as server:
        deadline = time.monotonic() + 6.0
        asked, killed = 0, False
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):  # of the one that is killed
                answer = httpx.post(
                    f"{server.url}/v1/embeddings", json={"input": "alpha"}, timeout=30
                )
                assert answer.status_code == httpx.codes.OK, answer.text
                asked += 1
            if not killed and asked >= 20:
                fronts = set(_children(server.process.pid)) - set(
                    _cores(_children(server.process.pid))
                )
                os.kill(max(fronts), signal.SIGKILL)
                killed = True
        assert killed
        assert asked > 40
