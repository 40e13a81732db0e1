"""Queries beside a flood of bulk requests, and a key beside another key that floods the server."""

import asyncio
import os
from pathlib import Path

import pytest
from nestvec.keys.records import KeyFile, KeyLimits
from nestvec.tools.bench.client import Target
from nestvec.tools.bench.load_generator import LoadResult, closed_load, open_load

from tests.end_to_end.chaos.conftest import Report
from tests.end_to_end.chaos.measured import default_server, unique_requests

pytestmark = [pytest.mark.load, pytest.mark.model]
SECONDS = float(os.environ.get("CHAOS_FAIR_S", "60"))
ROUNDS = 2


@pytest.mark.timeout(SECONDS * ROUNDS * 4 + 200)
async def test_queries_pass_a_flood(tmp_path: Path, report: Report) -> None:
    """Short queries stay fast beside bulk requests that saturate the server, and these keep their throughput."""
    alone, beside, bulk_alone, bulk = (LoadResult() for _ in range(4))
    with default_server(tmp_path) as server:
        target = Target.parse(f"{server.url}/v1/embeddings")

        async def ask(seed: int, into: LoadResult) -> None:
            result = await open_load(
                target,
                unique_requests("short", 1, seed=seed),
                rate_per_s=2,
                duration_s=SECONDS,
                seed=seed,
            )
            into.latencies_s += result.latencies_s
            into.statuses += result.statuses

        async def flood(seed: int, seconds: float, into: LoadResult) -> None:
            result = await closed_load(
                target,
                unique_requests("paragraph", 64, seed=seed),
                connections=4,
                duration_s=seconds,
            )
            into.tokens += result.tokens
            into.duration_s += result.duration_s
            into.statuses += result.statuses

        await flood(1, 4, LoadResult())
        for number in range(ROUNDS):
            await ask(10 + number, alone)
            await flood(20 + number, 15, bulk_alone)
            flooding = asyncio.create_task(flood(30 + number, SECONDS + 2, bulk))
            await asyncio.sleep(1)
            await ask(40 + number, beside)
            await flooding
        assert server.terminate() == 0
    ratio = beside.percentile_s(99) / alone.percentile_s(99)
    bulk_share = (bulk.tokens / bulk.duration_s) / (bulk_alone.tokens / bulk_alone.duration_s)
    report(
        f"{len(beside.latencies_s)} queries, 2/s, beside bulk (4 connections of 64 paragraphs)",
        f"p50 {alone.percentile_s(50) * 1000:.1f} -> {beside.percentile_s(50) * 1000:.1f} ms, p99 "
        f"{alone.percentile_s(99) * 1000:.1f} -> {beside.percentile_s(99) * 1000:.1f} ms ({ratio:.2f} times); "
        f"bulk keeps {bulk_share:.0%}",
    )
    assert set(beside.statuses) == {200}
    assert set(bulk.statuses) == {200}
    assert ratio <= 4
    assert bulk_share >= 0.9


@pytest.mark.timeout(SECONDS * 8 + 200)
@pytest.mark.parametrize("load", ["bulk", "queries"])
async def test_a_key_that_floods_costs_another_at_most_half(
    tmp_path: Path, report: Report, load: str
) -> None:
    """Requests of a key, one at a time, take at most twice as long beside another key's flood."""
    file = KeyFile.read(tmp_path / "keys.json")
    keys = [file.add(name, KeyLimits())[1] for name in ("quiet", "flood")]
    file.write()
    each = 64 if load == "bulk" else 8
    alone, beside = LoadResult(), LoadResult()
    with default_server(tmp_path, keys_file=tmp_path / "keys.json") as server:
        quiet, loud = (
            Target.parse(f"{server.url}/v1/embeddings", {"authorization": f"Bearer {key}"})
            for key in keys
        )

        async def work(target: Target, seed: int, connections: int, seconds: float) -> LoadResult:
            requests = unique_requests("paragraph", each, seed=seed)
            return await closed_load(target, requests, connections=connections, duration_s=seconds)

        await work(quiet, 1, 2, 4)
        for number in range(ROUNDS):
            result = await work(quiet, 10 + number, 1, SECONDS / 4)
            alone.latencies_s += result.latencies_s
            flooding = asyncio.create_task(work(loud, 20 + number, 32, SECONDS / 4 + 3))
            await asyncio.sleep(2)
            result = await work(quiet, 30 + number, 1, SECONDS / 4)
            beside.latencies_s += result.latencies_s
            beside.statuses += result.statuses
            await flooding
        assert server.terminate() == 0
    ratio = beside.percentile_s(50) / alone.percentile_s(50)
    report(
        f"a key's requests of {each} paragraphs beside another key's flood (32 connections)",
        f"median {alone.percentile_s(50) * 1000:.0f} -> {beside.percentile_s(50) * 1000:.0f} ms "
        f"({ratio:.2f} times), p99 {alone.percentile_s(99) * 1000:.0f} -> {beside.percentile_s(99) * 1000:.0f} ms",
    )
    assert set(beside.statuses) == {200}
    assert ratio <= 2.0
