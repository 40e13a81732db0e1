"""Ten times more than the server can do: it does as much as ever, says when to come again, and does not grow."""

import asyncio
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from nestvec.tools.bench.client import Target
from nestvec.tools.bench.load_generator import LoadResult, closed_load, open_load

from tests.end_to_end.chaos.conftest import Report
from tests.end_to_end.chaos.measured import Size, default_server, unique_requests
from tests.end_to_end.clients.venv import clients_python
from tests.support.server import environment

pytestmark = [pytest.mark.load, pytest.mark.model]
SECONDS = float(os.environ.get("CHAOS_OVERLOAD_S", "120"))
PEAK_S = 20.0
TIMES = 10
EACH = 32  # paragraphs a request
CLIENTS = 200
BURST_S = 30.0
SCRIPT = Path(__file__).parents[1] / "clients/scripts/openai_burst.py"


async def peak(url: str, seed: int) -> LoadResult:
    """Measure what the server can do, asked by few callers."""
    target = Target.parse(f"{url}/v1/embeddings")
    await closed_load(
        target, unique_requests("paragraph", EACH, seed=seed), connections=4, duration_s=4
    )
    return await closed_load(
        target,
        unique_requests("paragraph", EACH, seed=seed + 1),
        connections=4,
        duration_s=PEAK_S,
    )


@pytest.mark.timeout(SECONDS + 300)
async def test_ten_times_too_much(tmp_path: Path, report: Report) -> None:
    """Under ten times its capacity the goodput holds, refusals say when to come again, and memory does not grow."""
    with default_server(tmp_path) as server:
        best = await peak(server.url, 1)
        per_request = best.tokens / best.statuses[200]
        rate = TIMES * best.tokens / best.duration_s / per_request
        size = Size(server.process.pid)
        watching = asyncio.create_task(size.watch())
        flood = await open_load(
            Target.parse(f"{server.url}/v1/embeddings"),
            unique_requests("paragraph", EACH, seed=3),
            rate_per_s=rate,
            duration_s=SECONDS,
        )
        watching.cancel()
        after = await peak(server.url, 5)
        assert server.terminate() == 0
    # From the first request to the last answer: the queue is worked off behind the end.
    goodput = flood.tokens / flood.duration_s
    best_rate = max(best.tokens / best.duration_s, after.tokens / after.duration_s)
    waits = sorted(flood.retry_after_s)
    growth = size.growth_bytes(0.2)
    report(
        f"open loop, {TIMES}x capacity for {SECONDS:.0f} s ({rate:.0f} requests/s of {EACH} paragraphs)",
        f"goodput {goodput / best_rate:.2f} of the peak ({best_rate:.0f} tokens/s); answers "
        f"{dict(sorted(flood.statuses.items()))}; p99 of accepted {flood.percentile_s(99):.1f} s; "
        f"memory {growth / 2**20:+.0f} MB of {size.rss_bytes[-1] / 2**20:.0f}; Retry-After {waits}",
    )
    refused = flood.statuses[429]
    assert set(flood.statuses) <= {200, 429}
    assert refused > 0
    assert sum(flood.retry_after_s.values()) == refused
    assert len(waits) > 2
    assert waits[0] >= 1
    assert waits[-1] <= 120
    assert goodput >= 0.8 * best_rate
    assert flood.percentile_s(99) < 55
    assert growth < max(20 * 2**20, 0.05 * size.rss_bytes[-1])


@pytest.mark.timeout(400)
async def test_a_burst_of_openai_clients(tmp_path: Path, report: Report) -> None:
    """Two hundred clients with work for half a minute all finish, by the retries that they have anyway."""
    with default_server(tmp_path) as server:
        best = await peak(server.url, 7)
        tokens_a_text = best.tokens / best.texts
        texts = round(BURST_S * best.tokens / best.duration_s / tokens_a_text / CLIENTS)
        started = time.monotonic()
        done = await asyncio.to_thread(
            subprocess.run,
            [str(clients_python()), str(SCRIPT), server.url, str(CLIENTS), str(texts)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        took_s = time.monotonic() - started
        assert server.terminate() == 0
        statuses = {
            code: server.logs().count(f'"status": {code}') for code in (200, 429, 499, 503, 504)
        }
    assert done.returncode == 0, done.stderr[-2000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    report(
        f"{CLIENTS} OpenAI clients at once, {texts} paragraphs each (30 s of capacity), max_retries=5",
        f"finished {outcome['finished']}, failed {outcome['failed']}, in {took_s:.0f} s; answers {statuses}",
    )
    assert outcome == {"finished": CLIENTS, "failed": 0}
