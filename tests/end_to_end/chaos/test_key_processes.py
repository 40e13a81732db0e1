"""Keys over several HTTP processes: one count for all, and no process that lets in whom the others do not."""

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from nestvec.keys.records import KeyFile, KeyLimits

from tests.support.process_tree import http_processes
from tests.support.server import RunningServer, running_server
from tests.support.tiny import write_tiny_bert

pytestmark = [pytest.mark.process, pytest.mark.load]


def post(server: RunningServer, key: str, inputs: Any = "alpha") -> httpx.Response:
    """Embed something over a connection of its own."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    url = f"{server.url}/v1/embeddings"
    return httpx.post(url, json={"input": inputs}, headers=headers, timeout=30)


def test_processes_count_together_and_fail_closed(tmp_path: Path) -> None:
    """40 requests at once overshoot by one; a process that starts over a broken file lets nobody in."""
    path = tmp_path / "keys.json"
    file = KeyFile.read(path)
    keys = {
        limit: file.add(limit, KeyLimits(**{limit: 100}))[1]  # type: ignore[arg-type] # a test's own
        for limit in ("tokens_per_min", "monthly_tokens")
    }
    _, plain = file.add("plain", KeyLimits())
    file.write()
    (tmp_path / "data").mkdir()
    model = write_tiny_bert(tmp_path / "tiny")
    settings = {"model": model, "cache_dir": tmp_path / "cache", "http_processes": 2}
    with running_server(tmp_path, **settings, keys_file=path) as server:
        cost = post(server, plain, ["alpha beta gamma"] * 8).json()["usage"]["total_tokens"]
        for limit, key in keys.items():
            with ThreadPoolExecutor(40) as pool:
                asks = [pool.submit(post, server, key, ["alpha beta gamma"] * 8) for _ in range(40)]
                answers = [ask.result() for ask in asks]
            statuses = Counter(answer.status_code for answer in answers)
            assert set(statuses) == {200, 429}, (limit, statuses)
            assert 100 <= statuses[200] * cost <= 100 + cost, (limit, statuses)
        before = http_processes(server)
        path.write_bytes(path.read_bytes()[:100])
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        seen: Counter[int] = Counter()
        deadline_s = time.monotonic() + 30
        while sum(seen.values()) < 20 and time.monotonic() < deadline_s:
            try:
                seen[post(server, "").status_code] += 1
                seen[post(server, plain).status_code] += 1
            except httpx.HTTPError:
                time.sleep(0.1)
        assert set(seen) == {401, 503}, seen
        health = httpx.get(f"{server.url}/health/ready")
        assert health.status_code == 503
        file.write()
        time.sleep(2.5)
        assert post(server, plain).status_code == 200
        assert server.terminate() == 0
