"""Real servers, in one process and in several: reloaded, restarted one after the other, asked by operators."""

import asyncio
import json
import os
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest
from nestvec.keys.records import KeyFile, KeyLimits

from tests.processes.proxy import Balancer
from tests.support.process_tree import http_processes
from tests.support.server import RunningServer, running_server, starting_server, wait_until_ready
from tests.support.tiny import write_tiny_bert

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and a cache."""
    folder = tmp_path_factory.mktemp("running")
    write_tiny_bert(folder / "model")
    return folder


def settings(folder: Path, processes: int) -> dict[str, object]:
    """Settings that serve the tiny model."""
    return {
        "model": folder / "model",
        "cache_dir": folder / "cache",
        "http_processes": processes,
        "port": 0,
    }


def logged(server: RunningServer, event: str, count: int = 1) -> None:
    """Wait until an event was logged so often."""
    until = time.monotonic() + 20
    while server.logs().count(f'"event": "{event}"') < count:
        assert time.monotonic() < until, server.logs()
        time.sleep(0.02)


@pytest.mark.parametrize("processes", [0, 2])
def test_sighup_reads_keys_and_aliases_anew(folder: Path, tmp_path: Path, processes: int) -> None:
    """SIGHUP changes keys and aliases without a dropped request; a mistake changes nothing and is logged."""
    config, keys = tmp_path / "nestvec.toml", tmp_path / "keys"
    config.write_text('model_aliases = ["old"]\n[aliases.short]\ndimensions = 4\n')
    keys.write_text("first\n")
    chosen = {**settings(folder, processes), "config": config, "api_keys_file": keys}

    def ask(server: RunningServer, model: str, key: str) -> int:
        with httpx.Client(
            base_url=server.url, headers={"authorization": f"Bearer {key}"}
        ) as client:
            answer = client.post("/v1/embeddings", json={"model": model, "input": "alpha"})
            if answer.is_success and model == "short":
                assert len(answer.json()["data"][0]["embedding"]) == 4
            return answer.status_code

    with running_server(tmp_path, **chosen) as server:
        assert [ask(server, m, "first") for m in ("old", "short", "new")] == [200, 200, 404]
        config.write_text('model_aliases = ["new"]\n')
        keys.write_text("second\n")
        server.process.send_signal(signal.SIGHUP)
        logged(server, "reloaded", max(1, processes))
        assert [ask(server, m, "second") for m in ("old", "short", "new")] == [404, 404, 200]
        assert ask(server, "new", "first") == 401
        config.write_text('model_aliases = ["newer"\n')
        server.process.send_signal(signal.SIGHUP)
        logged(server, "reload_failed", max(1, processes))
        assert ask(server, "new", "second") == 200
        assert server.terminate() == 0


def test_a_process_that_is_replaced_has_what_was_reloaded(folder: Path, tmp_path: Path) -> None:
    """A key that was taken away by a reload is not good again in the process that takes a dead one's place."""
    keys = tmp_path / "keys"
    keys.write_text("first\n")
    with running_server(tmp_path, **settings(folder, 1), api_keys_file=keys) as server:
        # At once: a process that is still starting does it when it can.
        keys.write_text("second\n")
        server.process.send_signal(signal.SIGHUP)
        logged(server, "reloaded")
        (process,) = http_processes(server)
        os.kill(process, signal.SIGKILL)
        logged(server, "reloaded", 2)
        statuses = [
            httpx.post(
                f"{server.url}/v1/embeddings",
                json={"input": "alpha"},
                headers={"authorization": f"Bearer {key}"},
            ).status_code
            for key in ("first", "second")
        ]
        assert statuses == [401, 200]
        assert server.terminate() == 0


@pytest.mark.parametrize("processes", [0, 2])
def test_keys_with_limits_are_shared_and_reread(
    folder: Path, tmp_path: Path, processes: int
) -> None:
    """Every process counts against the same rates; a new key is good within seconds, without a signal."""
    path = tmp_path / "keys.json"
    file = KeyFile.read(path)
    record, key = file.add("someone", KeyLimits(requests_per_s=0.02, monthly_tokens=10**6))
    file.write()
    with running_server(tmp_path, **settings(folder, processes), keys_file=path) as server:
        auth = {"authorization": f"Bearer {key}"}
        statuses = [
            httpx.post(f"{server.url}/embed", json={"inputs": "alpha"}, headers=auth).status_code
            for _ in range(12)  # a connection each, so that every process gets some
        ]
        assert sorted(statuses) == [200] + [429] * 11
        _, new = file.add("another", KeyLimits())
        file.write()
        until = time.monotonic() + 10
        auth = {"authorization": f"Bearer {new}"}
        while httpx.get(f"{server.url}/v1/models", headers=auth).status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert server.terminate() == 0
    from nestvec.keys.usage_database import read_usage

    (used,) = read_usage(tmp_path / "data", time.strftime("%Y-%m", time.gmtime()))[record.id][:1]
    assert used == 1


async def restart(server: RunningServer, folder: Path, chosen: dict[str, object]) -> RunningServer:
    """End a server as an orchestrator does, and start it again on the same port."""
    assert await asyncio.to_thread(server.terminate) == 0
    context = starting_server(folder, **chosen)
    new_server = await asyncio.to_thread(context.__enter__)
    CONTEXTS.append(context)
    await asyncio.to_thread(wait_until_ready, new_server)
    return new_server


CONTEXTS: list[object] = []


@pytest.mark.parametrize("processes", [0, 1])
async def test_a_rolling_restart_loses_nothing(
    folder: Path, tmp_path: Path, processes: int
) -> None:
    """Two servers behind a balancer that never tries twice: every request of the load is answered with 200."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    chosen = [
        {
            **settings(folder, processes),
            "port": port,
            "drain_grace_s": 0.5,
            "data_dir": tmp_path / f"data{port}",
        }
        for port in ports
    ]
    statuses: list[int] = []
    stop = asyncio.Event()

    async def call(balancer: Balancer, number: int) -> None:
        texts = [f"alpha beta {number}"] * (1 + number % 3 * 20)
        while not stop.is_set():
            answer = await balancer.post("/v1/embeddings", {"input": texts})
            statuses.append(answer.status_code)
            # Short, so that requests are under way at each moment of a restart, which needs a part of the machine too.
            await asyncio.sleep(0.01)

    with (
        running_server(tmp_path, **chosen[0]) as first,
        running_server(tmp_path, **chosen[1]) as second,
    ):
        servers = [first, second]
        async with Balancer([server.url for server in servers]) as balancer:
            calls = [asyncio.create_task(call(balancer, number)) for number in range(6)]
            try:
                for index in (0, 1):
                    await asyncio.sleep(0.3)
                    servers[index] = await restart(servers[index], tmp_path, chosen[index])
                    await balancer.until_ready(2)
                await asyncio.sleep(0.3)
            finally:
                stop.set()
                await asyncio.gather(*calls)
        for server in servers:
            assert await asyncio.to_thread(server.terminate) == 0
        for context in CONTEXTS:
            context.__exit__(None, None, None)  # type: ignore[attr-defined] # a context manager
        CONTEXTS.clear()
    assert set(statuses) == {200}
    assert len(statuses) > 100


@pytest.mark.parametrize("processes", [0, 1])
def test_operators_ask_on_their_own_port(folder: Path, tmp_path: Path, processes: int) -> None:
    """Metrics are on the operators' port alone, and the API is not on it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    chosen = {**settings(folder, processes), "operations_port": port}
    with running_server(tmp_path, **chosen) as server:
        assert httpx.get(f"{server.url}/metrics").status_code == 404
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics")
        assert "nestvec_ready 1.0" in answer.text
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 404
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        assert server.terminate() == 0


def test_several_processes_count_together(folder: Path, tmp_path: Path) -> None:
    """Whichever process is asked for metrics, it tells what all of them have counted."""
    with running_server(tmp_path, **settings(folder, 2)) as server:
        for number in range(20):
            httpx.post(f"{server.url}/embed", json={"inputs": f"alpha {number}"})
        time.sleep(0.5)  # a request is counted a moment after its answer
        texts = {httpx.get(f"{server.url}/metrics").text for _ in range(6)}
        for text in texts:
            assert (
                'nestvec_requests_total{dialect="tei",model="model",route="/embed",status="200"} 20.0'
                in text
            )
            assert 'nestvec_inputs_total{model="model"} 20.0' in text
            assert 'nestvec_batches_total{model="model",outcome="ok"}' in text
            assert 'nestvec_process_resident_memory_bytes{role="core"}' in text
            assert "nestvec_vector_cache_misses_total" in text
            assert "nestvec_ready 1.0" in text
        assert server.terminate() == 0


def test_batches_are_run_by_one_and_known_to_all(folder: Path, tmp_path: Path) -> None:
    """Batches can be made, listed and fetched through whichever process answers."""
    with running_server(tmp_path, **settings(folder, 3)) as server:
        rows = [
            {
                "custom_id": str(n),
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {"input": "alpha"},
            }
            for n in range(50)
        ]
        content = "\n".join(map(json.dumps, rows)).encode()
        file = httpx.post(
            f"{server.url}/v1/files",
            data={"purpose": "batch"},
            files={"file": ("in.jsonl", content)},
        ).json()
        batches = [
            httpx.post(
                f"{server.url}/v1/batches",
                json={"input_file_id": file["id"], "endpoint": "/v1/embeddings"},
            ).json()["id"]
            for _ in range(4)
        ]
        until = time.monotonic() + 40
        while True:
            answers = [httpx.get(f"{server.url}/v1/batches/{name}").json() for name in batches]
            if all(batch["status"] == "completed" for batch in answers):
                break
            assert time.monotonic() < until, answers
            time.sleep(0.1)
        for batch in answers:
            name = batch["output_file_id"]
            output = httpx.get(f"{server.url}/v1/files/{name}/content")
            assert len(output.text.splitlines()) == 50
        assert server.terminate() == 0


def test_a_model_that_cannot_be_served_ends_all_processes(folder: Path, tmp_path: Path) -> None:
    """The server exits with 1, as it does in one process."""
    broken = tmp_path / "broken"
    broken.mkdir()
    chosen = {**settings(folder, 1), "model": broken}
    with starting_server(tmp_path, **chosen) as server:
        assert server.process.wait(40) == 1
        assert "model_failed" in server.logs()


def test_a_second_signal_stops_all_at_once(folder: Path, tmp_path: Path) -> None:
    """A second signal ends all processes even inside the grace time."""
    chosen = {**settings(folder, 1), "drain_grace_s": 300}
    with running_server(tmp_path, **chosen) as server:
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(20) == 0


def test_several_models_in_an_engine_process(folder: Path, tmp_path: Path) -> None:
    """Models are loaded, unloaded by an operator or to make room, and loaded again; their vectors stay the same."""
    write_tiny_bert(tmp_path / "second")
    chosen = {
        **settings(folder, 2),
        "models": f"{tmp_path / 'second'}",
        "admin_keys": "k",
        "admin_api": True,
    }
    auth = {"authorization": "Bearer k"}

    def ask(client: httpx.Client, model: str) -> list[float]:
        answer = client.post("/v1/embeddings", json={"model": model, "input": "alpha"})
        assert answer.status_code == 200, answer.text
        vector: list[float] = answer.json()["data"][0]["embedding"]
        return vector

    def loaded(client: httpx.Client, name: str) -> float:
        text = client.get("/metrics").text
        line = f'nestvec_model_loaded{{model="{name}"}} '
        return next(
            (float(row.split()[-1]) for row in text.splitlines() if row.startswith(line)), -1
        )

    with (
        running_server(tmp_path, **chosen) as server,
        httpx.Client(base_url=server.url, headers=auth, timeout=60) as client,
    ):
        before = {name: ask(client, name) for name in ("model", "second")}
        for _ in range(3):
            answer = client.post("/admin/models/unload", json={"model": "second"})
            assert answer.status_code == 200, answer.text
            until = time.monotonic() + 10
            while loaded(client, "second") != 0:
                assert time.monotonic() < until
                time.sleep(0.02)
            for name in ("model", "second"):
                # A connection each, so that either process answers.
                with httpx.Client(base_url=server.url, headers=auth, timeout=60) as other:
                    assert ask(other, name) == pytest.approx(before[name], abs=1e-5)
        assert server.terminate() == 0
