"""Good, bad, oversize and dropped requests at random, all at once; afterwards plain ones must work."""

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.server import running_server
from tests.support.tiny import WORDS, write_tiny_bert

pytestmark = pytest.mark.process
REQUESTS = 400
ALLOWED = {200, 400, 404, 405, 413, 422, 429}


def random_body(chooser: random.Random) -> bytes:
    """A body of any kind, most of them wrong."""
    text = " ".join(chooser.choices(WORDS, k=chooser.randrange(30)))
    bodies: list[Any] = [
        {"input": text, "truncate": True},
        {"input": [text] * chooser.randrange(200), "truncate": True},
        {"input": [text, None, 3]},
        {"input": [[chooser.randrange(-5, 200)] * 3]},
        {"input": text, "dimensions": chooser.choice([0, 5, 33, -1, "x", 1e99])},
        {"input": text, "model": chooser.choice(["", "x", 3, None])},
        [text],
        None,
    ]
    whole = json.dumps(chooser.choice(bodies)).encode()
    if chooser.random() < 0.2:
        whole = whole[: chooser.randrange(len(whole))]
    if chooser.random() < 0.1:
        whole = bytes(chooser.randrange(256) for _ in range(chooser.randrange(300)))
    if chooser.random() < 0.05:
        whole = b"[" * 200_000
    return whole


async def polite(client: httpx.AsyncClient, chooser: random.Random) -> int:
    """Send a whole request, whatever it holds."""
    path = chooser.choice(["/v1/embeddings", "/v1/embeddings", "/embeddings/", "/v1/models/x", "/"])
    answer = await client.post(path, content=random_body(chooser))
    assert answer.headers["content-type"].startswith("application/json")
    return answer.status_code


async def rude(host: str, port: int, chooser: random.Random) -> int:
    """Send a request that breaks off somewhere: in its head, in its body, or before the answer."""
    body = json.dumps({"input": ["alpha beta gamma"] * 500}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    whole = head + body
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(whole[: chooser.choice([3, len(head) - 2, len(head) + 50, len(whole)])])
    await writer.drain()
    await asyncio.sleep(chooser.random() * 0.02)
    writer.close()
    del reader
    return 0


async def test_the_server_outlives_everything(tmp_path: Path) -> None:
    """Each whole request is answered with a status of ours; nothing stays in the queue or in flight."""
    model = write_tiny_bert(tmp_path / "model")
    chooser = random.Random(1234)
    with running_server(
        tmp_path, model=model, cache_dir=tmp_path / "cache", max_body_bytes=100_000
    ) as server:
        url = httpx.URL(server.url)
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            calls = [
                rude(url.host, url.port or 0, chooser) if n % 4 == 0 else polite(client, chooser)
                for n in range(REQUESTS)
            ]
            statuses = Counter(await asyncio.gather(*calls))
            assert set(statuses) - {0} <= ALLOWED, statuses
            assert statuses[200]
            assert statuses[400]
            assert statuses[413]
            metrics = ""
            for _ in range(200):
                metrics = (await client.get("/metrics")).text
                if "nestvec_in_flight_requests 1.0" in metrics:
                    break
                await asyncio.sleep(0.05)
            assert "nestvec_in_flight_requests 1.0" in metrics  # this scrape itself
            assert 'nestvec_queue_items{model="model"} 0.0' in metrics
            answer = await client.post("/v1/embeddings", json={"input": "alpha"})
        assert answer.status_code == 200
        assert server.terminate() == 0
        events = [json.loads(line)["event"] for line in server.logs().splitlines()]
    assert not [event for event in events if "crash" in event or "failed" in event]
