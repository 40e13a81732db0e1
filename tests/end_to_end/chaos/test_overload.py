"""Ten times more than the server can do: it does as much as ever, says when to come again, and does not grow."""

import asyncio
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from nestvec.tools.bench.client import Target
from nestvec.tools.bench.load_generator import LoadRequest, LoadResult, closed_load, open_load

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
CONNECTIONS = 400
SHORT_TEXTS = 16
FLOOD_S = 60.0
MAX_QUEUE_WAIT_S = 20.0  # the default
# A request's own work, its reading and its answer, on the slowest machine that this runs on.
ONE_REQUEST_S = 2.0
WORDS = ("the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with")
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


def short_requests(seed: int) -> Iterator[LoadRequest]:
    """Make endless requests of sixteen texts of about sixty tokens."""
    chooser = random.Random(seed)
    while True:
        texts = [" ".join(chooser.choices(WORDS, k=58)) for _ in range(SHORT_TEXTS)]
        body = orjson.dumps({"input": texts, "encoding_format": "base64"})
        yield LoadRequest(body, SHORT_TEXTS)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("http_processes", [0, 2])
async def test_more_callers_than_there_is_time_for(
    tmp_path: Path, report: Report, http_processes: int
) -> None:
    """Of 400 connections at once those are admitted that can be answered soon; all of them are, and none is late."""
    with default_server(tmp_path, http_processes=http_processes) as server:
        target = Target.parse(f"{server.url}/v1/embeddings")
        await closed_load(target, short_requests(1), connections=4, duration_s=4)
        before = await closed_load(target, short_requests(2), connections=4, duration_s=PEAK_S)
        client_cpu_s = time.process_time()
        flood = await closed_load(
            target,
            short_requests(3),
            connections=CONNECTIONS,
            duration_s=FLOOD_S,
            heeds_retry_after=True,
        )
        client_cpu_s = time.process_time() - client_cpu_s
        after = await closed_load(target, short_requests(4), connections=4, duration_s=PEAK_S)
        assert server.terminate() == 0
    # The mean of before and after: a machine that others use too is not as fast all the time.
    best_rate = (before.tokens + after.tokens) / (before.duration_s + after.duration_s)
    goodput = flood.tokens / flood.duration_s
    accepted = flood.statuses[200] + flood.statuses[504]
    waits = sorted(flood.retry_after_s.elements())
    report(
        f"{CONNECTIONS} connections of {SHORT_TEXTS} texts of 60 tokens for {FLOOD_S:.0f} s, "
        f"http_processes={http_processes}",
        f"goodput {goodput / best_rate:.2f} of the peak ({best_rate:.0f} tokens/s); answers "
        f"{dict(sorted(flood.statuses.items()))}; accepted p50 {flood.percentile_s(50):.1f} s, p99 "
        f"{flood.percentile_s(99):.1f} s; Retry-After {waits[0]} to {waits[-1]} s, median {waits[len(waits) // 2]} s; "
        f"client {client_cpu_s:.1f} CPU-s",
    )
    assert set(flood.statuses) <= {200, 429, 504}
    assert flood.statuses[504] <= 0.01 * accepted
    assert goodput >= 0.9 * best_rate
    assert flood.percentile_s(99) <= MAX_QUEUE_WAIT_S + ONE_REQUEST_S
    assert waits[-1] <= 1.25 * MAX_QUEUE_WAIT_S + 1  # seconds are rounded up


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
