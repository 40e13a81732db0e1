"""What a machine does to a server: no file handles, no disk, no memory, a clock that jumps, callers that leave."""

import asyncio
import contextlib
import json
import resource
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.end_to_end.chaos.conftest import Report
from tests.end_to_end.chaos.load import Seen, call_until, texts, truth
from tests.support.server import (
    READY_TIMEOUT_S,
    RunningServer,
    command,
    environment,
    running_server,
    wait_until_ready,
)
from tests.support.tiny import write_tiny_bert

pytestmark = [pytest.mark.process, pytest.mark.load]
SPARE_BYTES = 2 * 2**20
NO_LIMIT = resource.RLIM_INFINITY


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """Settings that serve a tiny model without a vector cache."""
    return {
        "model": write_tiny_bert(tmp_path / "model"),
        "cache_dir": tmp_path / "cache",
        "vector_cache_bytes": 0,
        "truncate": "end",
    }


def engine_pid(server: RunningServer) -> int:
    """Id of the process that runs the engine."""
    lines = [json.loads(line) for line in server.logs().splitlines() if "engine_ready" in line]
    return int(lines[-1]["pid"])


async def check(client: httpx.AsyncClient, vector: object) -> None:
    """Check that a text has the vector that it had before."""
    answer = await client.post("/v1/embeddings", json={"input": "alpha beta"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["embedding"] == pytest.approx(vector, abs=1e-5)


async def test_no_file_handles(tmp_path: Path, settings: dict[str, object], report: Report) -> None:
    """Connections beyond the limit are not taken, open ones are served, and others are taken once some are closed."""
    with running_server(tmp_path, **settings) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            vector = (await truth(client, ["alpha beta"]))[0]
            process = psutil.Process(server.process.pid)
            process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 6,) * 2)
            url = httpx.URL(server.url)
            held = [socket.create_connection((url.host, url.port or 0)) for _ in range(60)]
            await asyncio.sleep(1)
            cpu = process.cpu_percent(1.0)
            await check(client, vector)
            for connection in held:
                connection.close()
            async with httpx.AsyncClient(base_url=server.url, timeout=30) as other:
                await check(other, vector)
        report(
            "60 connections where 6 more files may be opened",
            f"served on; CPU meanwhile {cpu:.0f}%",
        )
        assert server.terminate() == 0


async def test_no_disk(tmp_path: Path, settings: dict[str, object], report: Report) -> None:
    """Where nothing can be written, not even the log, vectors are served, and uploads fail and work again later."""
    chosen = {**settings, "vector_cache_bytes": 10**6, "vector_cache_file": tmp_path / "v.db"}
    with running_server(tmp_path, **chosen) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            vector = (await truth(client, ["alpha beta"]))[0]
            process = psutil.Process(server.process.pid)
            process.rlimit(psutil.RLIMIT_FSIZE, (0, NO_LIMIT))
            row = {
                "custom_id": "a",
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {"input": "x"},
            }
            file = {"file": ("in.jsonl", json.dumps(row).encode())}
            for number in range(5):
                failed = await client.post("/v1/files", data={"purpose": "batch"}, files=file)
                assert failed.status_code == 500, failed.text
                assert failed.json()["error"]["code"] == "store_error"
                await check(client, vector)
                await client.post("/embed", json={"inputs": f"alpha {number}"})
            process.rlimit(psutil.RLIMIT_FSIZE, (NO_LIMIT, NO_LIMIT))
            good = await client.post("/v1/files", data={"purpose": "batch"}, files=file)
            assert good.status_code == 200, good.text
            order = {"input_file_id": good.json()["id"], "endpoint": "/v1/embeddings"}
            batch = (await client.post("/v1/batches", json=order)).json()
            async with asyncio.timeout(20):
                while batch["status"] != "completed":
                    batch = (await client.get(f"/v1/batches/{batch['id']}")).json()
                    assert batch["status"] != "failed", batch
                    await asyncio.sleep(0.1)
        report(
            "no byte can be written",
            "vectors served; 5 uploads refused with store_error; then as before",
        )
        assert server.terminate() == 0


async def test_no_memory(tmp_path: Path, settings: dict[str, object], report: Report) -> None:
    """An engine process that gets no more memory refuses large work or is restarted, and no vector is wrong."""
    chosen = {**settings, "http_processes": 1, "max_batch_tokens": 50_000}
    known_texts = texts(300, longest=20)
    seen = Seen()
    with running_server(tmp_path, **chosen) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            vectors = await truth(client, known_texts)
            stop = asyncio.Event()
            callers = [
                asyncio.create_task(call_until(client, known_texts, vectors, stop, seen, n))
                for n in range(4)
            ]
            sizes = []
            for _ in range(3):
                with contextlib.suppress(psutil.Error):
                    engine = psutil.Process(engine_pid(server))
                    memory_limit = engine.memory_info().vms + SPARE_BYTES
                    engine.rlimit(psutil.RLIMIT_AS, (memory_limit, memory_limit))
                large = {"input": ["alpha beta gamma delta " * 5] * 2000}
                answers = await asyncio.gather(
                    *(client.post("/v1/embeddings", json=large) for _ in range(4))
                )
                sizes += [answer.status_code for answer in answers]
                await asyncio.sleep(1)
            stop.set()
            await asyncio.gather(*callers)
            metrics = (await client.get("/metrics")).text
        assert server.terminate() == 0
    shortages = [line for line in metrics.splitlines() if line.startswith("nestvec_memory_short")]
    report(
        f"{SPARE_BYTES >> 20} MB of memory left to the engine, 4 x 2,000 texts at once, three times",
        f"large: {sorted(sizes)}; small beside: {dict(seen.statuses)}, wrong {seen.wrong}; {shortages}",
    )
    assert set(sizes) <= {200, 429, 503, 504}
    assert seen.wrong == 0
    assert not seen.misshapen
    assert seen.statuses[200] > 10


@pytest.mark.skipif(
    shutil.which("faketime") is None, reason="faketime absent (apt-get install faketime)"
)
async def test_a_clock_that_jumps(
    tmp_path: Path, settings: dict[str, object], report: Report
) -> None:
    """The clock jumps a day on and a week back: no request fails, and no batch is lost or expires at once."""
    library = next(Path("/usr/lib").rglob("libfaketime.so.1"))
    stamp = tmp_path / "now"
    stamp.write_text("+0")
    log = tmp_path / "log"
    chosen = environment(
        **{
            **settings,
            "port": 0,
            "offline": True,
            "log_format": "json",
            "data_dir": tmp_path / "data",
        }
    )
    chosen |= {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(stamp),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_CACHE_DURATION": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    with log.open("w") as errors:
        process = subprocess.Popen(  # noqa: ASYNC220 - it starts in no time
            command("serve"), env=chosen, stdout=subprocess.DEVNULL, stderr=errors, text=True
        )
    try:
        url = ""
        until = time.monotonic() + READY_TIMEOUT_S
        while not url and time.monotonic() < until:
            listening = [
                json.loads(row) for row in log.read_text().splitlines() if '"listening"' in row
            ]
            url = listening[0]["url"] if listening else ""
            await asyncio.sleep(0.05)
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            await asyncio.to_thread(wait_until_ready, RunningServer(process, url, log))
            vector = (await truth(client, ["alpha beta"]))[0]
            row = {
                "custom_id": "a",
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {"input": "x"},
            }
            ended = []
            for jump in ("+1d", "-7d", "+0"):
                stamp.write_text(jump)
                await asyncio.sleep(1.5)
                for _ in range(20):
                    await check(client, vector)
                file = {"file": ("in.jsonl", json.dumps(row).encode())}
                sent = await client.post("/v1/files", data={"purpose": "batch"}, files=file)
                order = {"input_file_id": sent.json()["id"], "endpoint": "/v1/embeddings"}
                batch = (await client.post("/v1/batches", json=order)).json()
                async with asyncio.timeout(20):
                    while batch["status"] not in ("completed", "failed", "expired"):
                        batch = (await client.get(f"/v1/batches/{batch['id']}")).json()
                        await asyncio.sleep(0.1)
                ended.append(batch["status"])
        report("the clock jumps a day on and a week back", f"60 requests good, batches {ended}")
        assert ended == ["completed"] * 3
    finally:
        process.terminate()
        assert process.wait(30) == 0


async def test_callers_that_leave(
    tmp_path: Path, settings: dict[str, object], report: Report
) -> None:
    """Thousands break off in the middle and others crawl; those who stay are served, and nothing is left behind."""
    with running_server(tmp_path, **settings, header_timeout_s=2) as server:
        url = httpx.URL(server.url)
        body = json.dumps({"input": ["alpha beta gamma"] * 200}).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
        whole = head.encode() + body

        async def leave(number: int) -> None:
            reader, writer = await asyncio.open_connection(url.host, url.port or 0)
            cut = (5, len(head) - 2, len(head) + 30, len(whole))[number % 4]
            writer.write(whole[:cut])
            await asyncio.sleep(0.001 * (number % 7))
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            del reader

        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            vector = (await truth(client, ["alpha beta"]))[0]
            process = psutil.Process(server.process.pid)
            before, rss = process.num_fds(), process.memory_info().rss
            slow = [socket.create_connection((url.host, url.port or 0)) for _ in range(100)]
            for connection in slow:
                connection.sendall(b"POST /v1/emb")
            for start in range(0, 4000, 50):
                await asyncio.gather(*(leave(start + n) for n in range(50)))
                if start % 500 == 0:
                    await check(client, vector)
            await asyncio.sleep(3.5)
            closed = sum(b"408" in connection.recv(200) for connection in slow)
            for connection in slow:
                connection.close()
            await asyncio.sleep(0.5)
            after = process.num_fds()
            metrics = (await client.get("/metrics")).text
            await check(client, vector)
        grown = (process.memory_info().rss - rss) / 2**20
        assert server.terminate() == 0
    report(
        "4,000 callers that break off, 100 that crawl",
        f"{closed} told 408; open files {before} -> {after}; memory {grown:+.0f} MB",
    )
    assert closed == 100
    assert after <= before + 5
    assert "nestvec_in_flight_requests 1.0" in metrics
    assert 'nestvec_queue_items{model="model"} 0.0' in metrics
