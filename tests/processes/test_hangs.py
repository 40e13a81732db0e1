"""HTTP processes that hang, and run-time folders that vanish, under a real server."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.process_tree import (
    block_on_signal,
    engine_processes,
    http_processes,
    until,
)
from tests.support.server import RunningServer, running_server

pytestmark = pytest.mark.process
HANG_TIMEOUT_S = 1


@pytest.fixture(scope="module")
def server(
    tiny_folder: Path, tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server of two HTTP processes, which block their event loop when they are told."""
    folder = tmp_path_factory.mktemp("hangs")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in block_on_signal(folder / "site").items():
            patch.setenv(name, value)
        patch.delenv("XDG_RUNTIME_DIR", raising=False)
        patch.delenv("RUNTIME_DIRECTORY", raising=False)
        settings = {"model": tiny_folder, "cache_dir": tiny_cache, "vector_cache_bytes": 0}
        with running_server(
            folder, **settings, http_processes=2, http_hang_timeout_s=HANG_TIMEOUT_S
        ) as server:
            # The second one too: it takes connections when it can answer.
            until(
                lambda: 'nestvec_process_resident_memory_bytes{role="front-1"}' in metrics(server)
            )
            yield server
            assert server.terminate() == 0


def metrics(server: RunningServer) -> dict[str, float]:
    """What the server has counted, by name and labels."""
    answer = httpx.get(f"{server.url}/metrics", timeout=30)
    assert answer.status_code == httpx.codes.OK, answer.text
    rows = (row.rpartition(" ") for row in answer.text.splitlines() if not row.startswith("#"))
    return {name: float(value) for name, _, value in rows}


def embed(server: RunningServer) -> int:
    """Ask for a vector on a connection of its own."""
    return httpx.post(f"{server.url}/embed", json={"inputs": "alpha"}, timeout=30).status_code


def test_a_run_time_folder_that_vanishes_is_made_anew(server: RunningServer) -> None:
    """Metrics keep their figures; an engine process that dies afterwards is replaced as ever."""
    (folder,) = (server.log.parent / "data" / "run").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    for _ in range(5):
        assert embed(server) == httpx.codes.OK
    row = 'nestvec_requests_total{dialect="tei",model="tiny-bert",route="/embed",status="200"}'
    until(lambda: metrics(server).get(row, 0) >= 5)
    counted = metrics(server)[row]
    # At once: the server makes it anew while a tree of files is being removed.
    shutil.rmtree(folder.parent.rename(server.log.parent / "gone"))
    until(lambda: metrics(server).get(row, 0) >= counted, 5)
    until((folder / "core.sock").exists, 5)
    (engine,) = engine_processes(server)
    os.kill(engine, signal.SIGKILL)
    assert embed(server) == httpx.codes.OK
    until(lambda: metrics(server).get('nestvec_process_restarts_total{role="core"}', 0) == 1)
    assert embed(server) == httpx.codes.OK
    assert server.logs().count("engine_ready") == 2  # no crash loop


def test_one_of_two_that_hangs_is_replaced_and_the_other_serves_on(server: RunningServer) -> None:
    """Its event loop is blocked: its callers are cut off, and nobody else sees anything.

    The server is one whose run-time folder had vanished, if the test above has run.
    """
    earlier = metrics(server).get('nestvec_process_hangs_total{role="front-1"}', 0)
    victim = http_processes(server)[-1]
    url = httpx.URL(server.url)
    held = _connection_to(victim, (url.host, url.port or 0))
    os.kill(victim, signal.SIGUSR1)
    held.sendall(b"GET /health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
    while _is_there(victim):
        assert embed(server) == httpx.codes.OK
        assert httpx.get(f"{server.url}/health/ready").status_code == httpx.codes.OK
    assert _is_cut_off(held)
    held.close()
    until(lambda: metrics(server).get('nestvec_process_hangs_total{role="front-1"}', 0) > earlier)
    assert '"event": "http_process_hangs"' in server.logs()
    assert victim not in http_processes(server)


def _connection_to(pid: int, address: tuple[str, int]) -> socket.socket:
    """Open connections until a process has taken one, and return that one; the process may still have to load."""
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        connection = socket.create_connection(address, timeout=20)
        connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        connection.recv(4096)
        own_port = connection.getsockname()[1]
        taken = psutil.Process(pid).net_connections("tcp")
        if own_port in [getattr(other.raddr, "port", 0) for other in taken]:
            return connection
        connection.close()
        time.sleep(0.01)
    raise AssertionError("the process takes no connection")


def _is_cut_off(connection: socket.socket) -> bool:
    """Whether no answer comes any more, but the end; the end of an earlier answer may come before it."""
    try:
        while received := connection.recv(4096):
            if received.startswith(b"HTTP"):
                return False
    except ConnectionError:
        pass
    return True


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
