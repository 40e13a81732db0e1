"""A million unique texts without a cache: the server is as large afterwards as it was after the first tenth."""

import asyncio
import itertools
import os
from pathlib import Path

import pytest
from nestvec.tools.bench.client import Target
from nestvec.tools.bench.load_generator import closed_load

from tests.end_to_end.chaos.conftest import Report
from tests.end_to_end.chaos.measured import Size, default_server, unique_requests

pytestmark = [pytest.mark.load, pytest.mark.model]
TEXTS = {
    "static": int(os.environ.get("CHAOS_SOAK_STATIC", "1000000")),
    "all-MiniLM-L6-v2": int(os.environ.get("CHAOS_SOAK_DEFAULT", "100000")),
}
EACH = {"static": 128, "all-MiniLM-L6-v2": 32}
MAX_GROWTH_BYTES = 20 * 2**20


@pytest.mark.parametrize("model", TEXTS)
@pytest.mark.timeout(2400)
async def test_nothing_grows(tmp_path: Path, model: str, report: Report) -> None:
    """Memory grows by less than 5% or 20 MB, and the open files stay as many."""
    each, texts = EACH[model], TEXTS[model]
    with default_server(tmp_path, model=model) as server:
        target = Target.parse(f"{server.url}/v1/embeddings")
        size = Size(server.process.pid)
        requests = itertools.islice(unique_requests("short", each, seed=1), -(-texts // each))
        watching = asyncio.create_task(size.watch())
        result = await closed_load(target, requests, connections=6, duration_s=2000)
        watching.cancel()
        size.look()
        assert server.terminate() == 0
    warm = len(size.rss_bytes) // 10
    growth, start = size.growth_bytes(0.1), size.rss_bytes[warm]
    report(
        f"soak, {result.texts} unique short texts, {model}",
        f"{result.texts / result.duration_s:.0f} texts/s for {result.duration_s:.0f} s; errors {result.errors}; "
        f"memory {start / 2**20:.0f} MB after a tenth, {growth / 2**20:+.1f} MB since; "
        f"open files {min(size.files[warm:])} to {max(size.files[warm:])}",
    )
    assert result.errors == 0
    assert result.texts >= texts
    assert growth < max(MAX_GROWTH_BYTES, 0.05 * start)
    assert max(size.files[warm:]) - min(size.files[warm:]) <= 8
