"""The engine process killed and stopped under load: callers get right vectors, or are told to come again."""

import asyncio
import json
import os
import random
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.end_to_end.chaos.conftest import Report
from tests.end_to_end.chaos.load import Seen, call_until, texts, truth
from tests.support.server import RunningServer, running_server
from tests.support.tiny import write_tiny_bert

pytestmark = pytest.mark.process
# Another model than the tiny one, for figures of a start that takes its time.
MODEL = os.environ.get("CHAOS_ENGINE_MODEL", "")
KILLS = int(os.environ.get("CHAOS_ENGINE_KILLS", "4"))  # 100 by `make test-chaos`
CALLERS = 8
RECOVERY_S = 5.0


def engine_of(server: RunningServer) -> psutil.Process:
    """The engine process of a server, once it is ready."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        lines = [json.loads(line) for line in server.logs().splitlines() if "engine_ready" in line]
        if lines and psutil.pid_exists(lines[-1]["pid"]):
            return psutil.Process(lines[-1]["pid"])
        time.sleep(0.01)
    raise AssertionError("there is no engine")


async def until_good(client: httpx.AsyncClient, text: str) -> float:
    """Wait until a text is embedded again; gives the seconds that took."""
    started = time.monotonic()
    while time.monotonic() - started < 30:
        answer = await client.get("/health/ready")
        if answer.status_code == 200:
            answer = await client.post("/v1/embeddings", json={"input": text})
            if answer.status_code == 200:
                return time.monotonic() - started
        await asyncio.sleep(0.02)
    raise AssertionError("the engine did not come back")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny model of random weights."""
    return write_tiny_bert(tmp_path / "model")


async def until_nothing_is_suspected(client: httpx.AsyncClient) -> None:
    """Wait until what ran at the last kill has run alone and well: killed alone, twice, it would be quarantined."""
    async with asyncio.timeout(30):
        while "nestvec_suspect_inputs 0.0" not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.02)


@pytest.mark.timeout(120 + 12 * KILLS)
async def test_killed_under_load(model: Path, tmp_path: Path, report: Report) -> None:
    """After each kill -9 answers are right or retriable, the engine is back within seconds, and no caller hangs."""
    settings = {
        **({"model": MODEL} if MODEL else {"model": model, "cache_dir": tmp_path / "cache"}),
        "http_processes": 1,
        "vector_cache_bytes": 0,
        "truncate": "end",
    }
    known_texts = texts(400)
    chooser = random.Random(11)
    seen, recoveries = Seen(), []
    with running_server(tmp_path, **settings) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            vectors = await truth(client, known_texts)
            stop = asyncio.Event()
            callers = [
                asyncio.create_task(call_until(client, known_texts, vectors, stop, seen, n))
                for n in range(CALLERS)
            ]
            try:
                for _ in range(KILLS):
                    await until_nothing_is_suspected(client)
                    await asyncio.sleep(chooser.uniform(0.05, 0.6))
                    (await asyncio.to_thread(engine_of, server)).kill()
                    await asyncio.sleep(0.1)
                    recoveries.append(0.1 + await until_good(client, "alpha"))
            finally:
                stop.set()
                async with asyncio.timeout(30):
                    await asyncio.gather(*callers)
            metrics = (await client.get("/metrics")).text
        assert server.terminate() == 0
    report(
        f"{KILLS} times kill -9 of the engine under load, {MODEL or 'tiny model'}",
        f"answers {dict(seen.statuses)}, wrong {seen.wrong}; recovery at most {max(recoveries):.2f} s, median "
        f"{sorted(recoveries)[KILLS // 2]:.2f} s; longest answer {seen.longest_s:.2f} s",
    )
    assert seen.wrong == 0
    assert not seen.misshapen
    assert seen.statuses[200] > 20 * KILLS
    # The HTTP process never went away.
    assert not seen.statuses[0]
    assert max(recoveries) < RECOVERY_S
    assert f'nestvec_process_restarts_total{{role="core"}} {float(KILLS)}' in metrics


async def test_a_stopped_engine_is_replaced(model: Path, tmp_path: Path) -> None:
    """An engine that is stopped has no heartbeat: it is replaced, and the next one answers its calls."""
    settings = {"model": model, "cache_dir": tmp_path / "cache", "http_processes": 1}
    with running_server(tmp_path, **settings) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            vectors = await truth(client, ["alpha beta"])
            old = engine_of(server)
            old.send_signal(signal.SIGSTOP)
            answer = await client.post(
                "/v1/embeddings",
                json={"input": "alpha beta"},
                headers={"cache-control": "no-store"},
            )
            assert answer.status_code == 200
            assert answer.json()["data"][0]["embedding"] == pytest.approx(vectors[0], abs=1e-5)
            assert engine_of(server).pid != old.pid
        assert '"trouble": "silent"' in server.logs()


async def test_a_dead_http_process_is_replaced(model: Path, tmp_path: Path) -> None:
    """While a dead HTTP process is replaced the other one serves on."""
    settings = {"model": model, "cache_dir": tmp_path / "cache", "http_processes": 2}
    with running_server(tmp_path, **settings) as server:
        engine = engine_of(server)
        http_processes = [
            child
            for child in psutil.Process(server.process.pid).children()
            if child.pid != engine.pid and "resource_tracker" not in " ".join(child.cmdline())
        ]
        assert len(http_processes) == 2
        http_processes[1].kill()
        until = time.monotonic() + 20
        good = 0
        while time.monotonic() < until and good < 50:
            try:
                async with httpx.AsyncClient(base_url=server.url) as client:
                    good += (await client.post("/embed", json={"inputs": "alpha"})).is_success
            except httpx.TransportError:
                await asyncio.sleep(0.02)
        assert good == 50
        assert server.terminate() == 0


def test_when_the_supervisor_dies_so_do_the_others(model: Path, tmp_path: Path) -> None:
    """No process is left behind with the port."""
    settings = {"model": model, "cache_dir": tmp_path / "cache", "http_processes": 1}
    with running_server(tmp_path, **settings) as server:
        children = psutil.Process(server.process.pid).children()
        server.process.kill()
        server.process.wait()
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive
