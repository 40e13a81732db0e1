"""Requests that keep the front's threads busy for seconds, and whether these threads still work."""

import json
import re
import socket
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import psutil

from tests.support.server import RunningServer

# Bounds that let one request have so much work that its deadline is sure to pass meanwhile.
SETTINGS: Final[dict[str, Any]] = {
    "max_tokens_per_request": 10**8,
    "max_token_vectors_per_request": 10**7,
    "max_queue_tokens": 10**9,
    "max_front_characters": 10**9,
    "vector_cache_bytes": 0,
    "front_threads": 2,
}
WORDS: Final = "alpha beta gamma delta "
# A server works within so long after the answer, or the departure, at most.
IDLE_S: Final = 1.0
WATCHED_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class HeavyRequest:
    """A request whose answer takes seconds of the front's threads.

    Attributes:
        path: Where it goes.
        body: What is sent.
    """

    path: str
    body: dict[str, Any]


def _documents(text: str, count: int, **splitter: Any) -> HeavyRequest:
    return HeavyRequest(
        "/v1/embeddings", {"input": [text] * count, "late_chunking": splitter, "model": ""}
    )


HEAVY: Final[dict[str, HeavyRequest]] = {
    "many texts": HeavyRequest(
        "/v1/embeddings", {"input": [WORDS * 300] * 1000, "truncate": "end"}
    ),
    "windows": HeavyRequest(
        "/v1/embeddings", {"input": [WORDS * 15_000] * 20, "truncate": "windows"}
    ),
    "a prompt": HeavyRequest(
        "/v1/embeddings",
        {"input": ["alpha"] * 2000, "prompt": " " * 20_000, "truncate": "end"},
    ),
    "blanks": HeavyRequest(
        "/v1/embeddings", {"input": ["\u3000" * 200_000] * 20, "truncate": "end"}
    ),
    "sentences": _documents("alpha beta. gamma delta? " * 100_000, 2, splitter="sentences"),
    "markdown": _documents("# alpha\n\n> beta\n> gamma\n\n" * 40_000, 2, splitter="markdown"),
    "one paragraph": _documents("alpha beta\n" * 300_000, 2, splitter="markdown"),
    "chunks of tokens": _documents(WORDS * 60_000, 4, splitter="tokens", chunk_tokens=4),
    "described": HeavyRequest("/tokenize", {"inputs": [WORDS * 300] * 1000}),
}


def busy_threads(server: RunningServer) -> float:
    """Return how many of the front's threads work, as the server's own metric says."""
    text = httpx.get(f"{server.url}/metrics", timeout=10).text
    match = re.search(r"^nestvec_front_busy_threads ([0-9.e+]+)$", text, re.MULTILINE)
    assert match is not None
    return float(match[1])


def ask(server: RunningServer, heavy: HeavyRequest, timeout_ms: int) -> int:
    """Send a request that is to be answered in so many milliseconds, and return the status of its answer."""
    headers = {"x-request-timeout-ms": str(timeout_ms)}
    url = f"{server.url}{heavy.path}"
    return httpx.post(url, json=heavy.body, headers=headers, timeout=30).status_code


def leave(server: RunningServer, heavy: HeavyRequest) -> None:
    """Send a request, wait until a thread works for it, and go away."""
    body = json.dumps(heavy.body, ensure_ascii=False).encode()
    address = urlsplit(server.url)
    head = (
        f"POST {heavy.path} HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        deadline_s = time.monotonic() + 10
        while not busy_threads(server):
            assert time.monotonic() < deadline_s, "the request was not worked on"


def assert_idle(server: RunningServer) -> None:
    """Check that within a second no thread of the front works, and that the process has nothing to do."""
    deadline_s = time.monotonic() + IDLE_S
    while busy := busy_threads(server):
        assert time.monotonic() < deadline_s, f"{busy:g} threads still work"
        time.sleep(0.02)
    process = psutil.Process(server.process.pid)
    before = sum(process.cpu_times()[:2])
    time.sleep(WATCHED_S)
    assert sum(process.cpu_times()[:2]) - before < WATCHED_S / 2
