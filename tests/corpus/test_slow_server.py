"""`nestvec embed --url` against servers that are slow, busy, strict or absent, in a time that does not pass."""

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from nestvec.corpus.embedders import TextOptions
from nestvec.corpus.job import CorpusJob, CorpusSummary
from nestvec.corpus.reading.sources import find_sources
from nestvec.corpus.run import embed_corpus
from nestvec.corpus.server_client import ServerClient
from nestvec.corpus.server_embedder import ServerEmbedder
from nestvec.errors import SourceError

from tests.corpus.slow_server import SlowServer, run_in_no_time, vector_of


@pytest.fixture
def abstracts(tmp_path: Path) -> Callable[[int], Path]:
    """Return a function that writes a file of so many texts of some 250 words."""

    def write(count: int) -> Path:
        chance = random.Random(7)
        path = tmp_path / "abstracts.jsonl"
        with path.open("w") as file:
            for number in range(count):
                words = [f"w{chance.randrange(10**4):04}" for _ in range(chance.randint(100, 400))]
                file.write(json.dumps({"id": f"d{number}", "text": " ".join(words)}) + "\n")
        return path

    return write


def embed(server: SlowServer, path: Path) -> tuple[CorpusSummary, list[str], float]:
    """Embed a file by a server; return what was done, the ids written, and how long it seemed to take."""
    target = path.with_suffix(".out.jsonl")

    async def work() -> CorpusSummary:
        async with server.client() as client:
            job = CorpusJob(find_sources([str(path)]), target)
            return await embed_corpus(client, job, lambda *_: None)

    summary, took_s = run_in_no_time(work())
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    texts = {row["id"]: row["text"] for row in map(json.loads, path.read_text().splitlines())}
    for row in rows:
        assert row["embedding"] == vector_of(texts[row["id"]]).tolist()
    return summary, [row["id"] for row in rows], took_s


@pytest.mark.parametrize(("tokens_per_s", "count"), [(2000, 600), (200, 40)])
def test_a_slow_server_is_asked_for_what_it_can_do(
    abstracts: Callable[[int], Path], tokens_per_s: int, count: int
) -> None:
    """All texts come back in order, no request takes 30 s, nothing is embedded twice, and the server is kept busy."""
    server = SlowServer(tokens_per_s)
    summary, ids, took_s = embed(server, abstracts(count))
    assert ids == [f"d{number}" for number in range(count)]
    assert max(server.took_s) < 30
    assert server.failed == 0
    assert set(server.embedded.values()) == {1}
    assert took_s < 1.2 * summary.tokens / tokens_per_s
    if tokens_per_s == 2000:
        assert summary.tokens > 140_000


def test_a_server_that_becomes_slow_is_asked_for_less(abstracts: Callable[[int], Path]) -> None:
    """A request that times out is halved, what was finished is not asked for again, and later ones are smaller."""
    server = SlowServer(20_000)
    slow = server.answer

    async def slower(request: httpx.Request) -> httpx.Response:
        if len(server.embedded) > 60:
            server.tokens_per_s = 100
        return await slow(request)

    server.answer = slower  # type: ignore[method-assign] # it becomes slow on the way
    _, ids, _ = embed(server, abstracts(400))
    assert ids == [f"d{number}" for number in range(400)]
    assert server.failed > 0
    assert set(server.embedded.values()) == {1}
    assert max(server.took_s[-20:]) < 30, server.took_s


def test_a_strict_server_gets_smaller_requests(abstracts: Callable[[int], Path]) -> None:
    """A request that is too large is halved, and the next ones are no larger."""
    server = SlowServer(50_000, max_tokens=900)
    _, ids, _ = embed(server, abstracts(100))
    assert len(ids) == 100
    assert set(server.embedded.values()) == {1}


def test_a_keys_limit_is_waited_for(abstracts: Callable[[int], Path]) -> None:
    """All requests wait as long as a refusal says, however often it comes."""
    too_soon = [httpx.Response(429, headers={"retry-after": "60"}) for _ in range(12)]
    server = SlowServer(50_000, refusals=too_soon)
    _, ids, took_s = embed(server, abstracts(50))
    assert len(ids) == 50
    assert took_s >= 12 * 60


def test_a_months_quota_is_not_waited_for(abstracts: Callable[[int], Path]) -> None:
    """Where the server says that another try is of no use, the run ends with what it says."""
    spent = httpx.Response(
        429,
        headers={"retry-after": "120", "x-should-retry": "false"},
        json={"error": {"message": "quota of 5 tokens a month", "code": "insufficient_quota"}},
    )
    with pytest.raises(SourceError, match=r"http://slow.*429.*quota of 5 tokens a month"):
        embed(SlowServer(1000, refusals=[spent]), abstracts(3))


def test_what_is_done_is_kept_when_the_server_fails(abstracts: Callable[[int], Path]) -> None:
    """A run that a failing server ended is gone on with: no text is embedded twice but those in flight."""
    path = abstracts(200)
    server = SlowServer(2000)
    whole = server.answer

    async def failing(request: httpx.Request) -> httpx.Response:
        if len(server.embedded) > 100:
            return httpx.Response(500)
        return await whole(request)

    server.answer = failing  # type: ignore[method-assign] # it fails on the way
    with pytest.raises(SourceError, match="answered 500"):
        embed(server, path)
    before = sum(server.embedded.values())
    server.answer = whole  # type: ignore[method-assign] # and is well again
    summary, ids, _ = embed(server, path)
    assert ids == [f"d{number}" for number in range(200)]
    assert summary.resumed > 60
    assert before - summary.resumed <= 40
    assert sum(server.embedded.values()) == before + 200 - summary.resumed


async def test_a_server_that_is_not_there_is_said_at_once() -> None:
    """A refused connection is an error at the first try, and names the URL."""
    remote = ServerEmbedder("http://127.0.0.1:1", key="", model="")
    with pytest.raises(SourceError, match=r"http://127\.0\.0\.1:1: .*connection refused"):
        await remote.model(TextOptions())
    await remote.close()


async def test_what_is_no_url_is_said() -> None:
    """An address without a scheme is refused as such."""
    remote = ServerEmbedder("localhost:8080", key="", model="")
    with pytest.raises(SourceError, match="is no URL"):
        await remote.model(TextOptions())
    await remote.close()


def test_requests_belong_to_the_trace_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts `embed` in a step of its own trace finds the server's spans under it."""
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    monkeypatch.setenv("TRACEPARENT", parent)
    headers = ServerClient("http://server", "a-key", time.monotonic).http.headers
    assert headers["traceparent"] == parent
    monkeypatch.setenv("TRACEPARENT", "nonsense")
    assert "traceparent" not in ServerClient("http://server", "", time.monotonic).http.headers
