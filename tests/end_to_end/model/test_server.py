"""The default model behind a real server: many callers at once, bad ones among them, and counters that add up."""

import asyncio
import base64
import contextlib
import random
import re
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from nestvec.model_store.package import Package
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.golden.make import VECTORS
from tests.end_to_end.golden.texts import golden_texts
from tests.support.server import RunningServer, running_server

pytestmark = [pytest.mark.model, pytest.mark.process]
REQUESTS = 1000
SHORT_CHARS = 200
# Slow machines may take a minute for all of them; the test is of right answers, not of speed.
SETTINGS = {
    "max_body_bytes": 12_000_000,
    "request_timeout_s": 600,
    "max_queue_wait_s": 600,
    "vector_cache_bytes": 0,
}
# A client of httpx looks through all of its connections for each request.
CLIENTS = 20
LIMITS = httpx.Limits(max_connections=REQUESTS // CLIENTS)


@pytest.fixture(scope="module")
def server(
    default_package: Package, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server that takes all requests at once."""
    del default_package  # skips where the model is absent
    with running_server(tmp_path_factory.mktemp("server"), **SETTINGS) as running:
        yield running


def counters(server: RunningServer) -> dict[str, float]:
    """Return counters and gauges, summed over all labels but status and reason."""
    sums: dict[str, float] = {}
    text = httpx.get(f"{server.url}/metrics").text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("route", "/v1/embeddings") != "/v1/embeddings":
                continue
            label = sample.labels.get("status") or sample.labels.get("reason") or ""
            if "le" not in sample.labels:
                sums[sample.name + label] = sums.get(sample.name + label, 0.0) + sample.value
    return sums


def decode(answer: httpx.Response) -> NDArray[np.float32]:
    """Return the vectors of a base64 response."""
    assert answer.status_code == 200, answer.text[:300]
    rows = [np.frombuffer(base64.b64decode(d["embedding"]), "<f4") for d in answer.json()["data"]]
    return np.stack(rows)


async def test_a_thousand_concurrent_mixed_requests(server: RunningServer) -> None:
    """Each request gets the vectors of its own texts; requests, inputs and tokens add up exactly."""
    texts, golden = golden_texts(), np.load(VECTORS)
    chooser = random.Random(11)
    # One in twenty is long: they take most of the time.
    short = [index for index, text in enumerate(texts) if len(text) <= SHORT_CHARS]
    every = range(len(texts))
    index_lists = [
        [
            chooser.choice(short if chooser.random() < 0.8 else every)
            for _ in range(chooser.choice((1, 1, 1, 1, 2, 4)))
        ]
        for _ in range(REQUESTS)
    ]
    sizes = [chooser.choice((None, None, 64, 256)) for _ in range(REQUESTS)]
    before = counters(server)
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=server.url, limits=LIMITS, timeout=600)
            )
            for _ in range(CLIENTS)
        ]

        async def send(number: int, indices: list[int], size: int | None) -> httpx.Response:
            body: dict[str, Any] = {
                "input": [texts[i] for i in indices],
                "encoding_format": "base64",
                "truncate": True,
                "dimensions": size,
            }
            return await clients[number % CLIENTS].post("/v1/embeddings", json=body)

        answers = await asyncio.gather(*map(send, range(REQUESTS), index_lists, sizes))
    tokens = 0
    for indices, size, answer in zip(index_lists, sizes, answers, strict=True):
        expected = golden[indices][:, : size or 384].astype(np.float64)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert np.einsum("nd,nd->n", decode(answer), expected).min() >= 0.99999
        tokens += answer.json()["usage"]["total_tokens"]
    after = counters(server)
    grown = {name: after[name] - before.get(name, 0.0) for name in after}
    inputs = sum(map(len, index_lists))
    assert grown["nestvec_requests_total200"] == REQUESTS
    assert grown["nestvec_request_duration_seconds_count"] == REQUESTS
    assert grown["nestvec_inputs_total"] == inputs
    assert grown["nestvec_tokens_total"] == tokens
    assert grown["nestvec_queue_wait_seconds_count"] == inputs
    assert grown["nestvec_batch_inputs_sum"] == inputs
    assert grown["nestvec_batch_tokens_sum"] == tokens
    assert (after["nestvec_queue_items"], after["nestvec_queue_tokens"]) == (0, 0)
    assert all(value == 0 for name, value in grown.items() if name.startswith("nestvec_dropped"))


BAD: list[tuple[str, dict[str, Any], int]] = [
    ("empty list", {"json": {"input": []}}, 400),
    ("ten megabytes", {"json": {"input": "alpha " * 1_700_000}}, 400),
    ("a million items", {"json": {"input": ["a"] * 1_000_000}}, 400),
    (
        "id out of range",
        {"json": {"input": [30522]}, "headers": {"x-embed-token-vocab": "model"}},
        400,
    ),
    ("negative id", {"json": {"input": [-1]}}, 400),
    ("negative dimensions", {"json": {"input": "a", "dimensions": -1}}, 400),
    ("huge dimensions", {"json": {"input": "a", "dimensions": 10**12}}, 400),
    ("NaN", {"content": b'{"input": "a", "dimensions": NaN}'}, 400),
    ("wrong type", {"json": {"input": {"a": 1}}}, 400),
    ("invalid UTF-8", {"content": b'{"input": "\xff"}'}, 400),
    ("broken JSON", {"content": b'{"input": '}, 400),
    ("no body", {"content": b""}, 400),
    ("over the limit", {"content": b" " * 12_000_001}, 413),
    ("unknown model", {"json": {"input": "a", "model": "x"}}, 404),
    ("too long", {"json": {"input": "word " * 300}}, 400),
]


@pytest.mark.parametrize(
    ("arguments", "status"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
async def test_bad_requests_among_good_ones(
    server: RunningServer, arguments: dict[str, Any], status: int
) -> None:
    """A bad request gets the right status in OpenAI's shape, and good ones at the same time are unharmed."""
    golden = np.load(VECTORS)
    texts = golden_texts()
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        good = [
            client.post("/v1/embeddings", json={"input": texts[n], "encoding_format": "base64"})
            for n in (0, 9, 60)
        ]
        bad, *others = await asyncio.gather(client.post("/v1/embeddings", **arguments), *good)
    assert bad.status_code == status
    assert set(bad.json()["error"]) == {"message", "type", "param", "code"}
    for n, answer in zip((0, 9, 60), others, strict=True):
        assert decode(answer)[0] @ golden[n] >= 0.99999


async def test_ten_megabytes_are_embedded_where_truncation_is_on(server: RunningServer) -> None:
    """Ten megabytes are embedded as a text of 256 tokens where truncation is on."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        answer = await client.post(
            "/v1/embeddings", json={"input": "alpha " * 1_700_000, "truncate": True}
        )
    assert answer.json()["usage"]["total_tokens"] == 256


def test_the_error_of_a_huge_text_counts_from_below(server: RunningServer) -> None:
    """The error of a huge text says "at least", since the rest was never tokenized."""
    answer = httpx.post(
        f"{server.url}/v1/embeddings", json={"input": "alpha " * 100_000}, timeout=60
    )
    message = answer.json()["error"]["message"]
    assert re.search(r"maximum context length is 256 tokens.*at least \d{4,} tokens", message)
