"""The event loop is never blocked: no callback of the most expensive requests takes long, and the lag is measured."""

import asyncio
import gc
import json
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from nestvec.processes.event_loop_lag import measure_event_loop_lag
from starlette.types import Message

from tests.api.applications import Api, MakeApi

# On a current machine; on a slower one, what parsing 15 MB of plain text three times takes.
MAX_CALLBACK_S = 0.05
MEGABYTE = 2**20


class Slowest:
    """The callback of the loop that has computed longest, in the time of its thread."""

    def __init__(self) -> None:
        self.took_s = 0.0
        self.what = ""

    def note(self, took_s: float, what: object) -> None:
        """Take note of a callback that has run."""
        if took_s > self.took_s:
            self.took_s, self.what = took_s, repr(what)


@pytest.fixture
def slowest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slowest]:
    """Measure every callback; older objects are kept out of garbage collection, as in a server that is ready."""
    was_frozen = gc.get_freeze_count() > 0  # what was collected of tests
    gc.collect()
    gc.freeze()
    slowest = Slowest()
    run = asyncio.events.Handle._run

    def watched(handle: asyncio.events.Handle) -> None:
        began = time.thread_time()
        run(handle)
        slowest.note(time.thread_time() - began, handle)

    monkeypatch.setattr(asyncio.events.Handle, "_run", watched)
    yield slowest
    if not was_frozen:
        gc.unfreeze()


async def post(api: Api, path: str, body: bytes, **headers: str) -> int:
    """Send a request without a client, whose own work would be counted too; returns the status."""
    sent = False
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            await asyncio.Event().wait()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("server", 80),
        "client": ("client", 1),
    }
    await api.app(scope, receive, send)
    return statuses[0]


def expensive_requests() -> dict[str, tuple[str, bytes, int]]:
    """Return requests at the limits of what may be sent: path, body, and the status expected."""
    long = "alpha beta, " * (15 * MEGABYTE // 12)
    words = " ".join(["alpha beta gamma"] * 40)
    floats = json.dumps([0.12345678] * 390_000).encode()
    return {
        "one text of 15 MB": (
            "/v1/embeddings",
            json.dumps({"input": long, "truncate": True}).encode(),
            200,
        ),
        "2048 texts": (
            "/v1/embeddings",
            json.dumps({"input": [words] * 2048, "truncate": True}).encode(),
            200,
        ),
        "2048 texts as lists": ("/embed", json.dumps({"inputs": [words] * 2048}).encode(), 200),
        "tokens of 2048 texts": (
            "/tokenize",
            json.dumps({"inputs": ["alpha " * 25] * 2048}).encode(),
            200,
        ),
        "many ids": (
            "/v1/embeddings",
            json.dumps({"input": [[7] * 190] * 2000, "truncate": True}).encode(),
            200,
        ),
        "as many numbers as there may be": ("/v1/embeddings", b'{"input": %s}' % floats, 400),
        "more": ("/v1/embeddings", b'{"input": %s}' % (b"[" + b"1," * 5_000_000 + b"1]"), 400),
        "objects": ("/v1/embeddings", b'{"input": [%s{}]}' % (b'{"a":1},' * 95_000), 400),
        "15 MB of nothing": ("/v1/embeddings", b" " * 15 * MEGABYTE, 400),
        "15 MB that break off": ("/v1/embeddings", b'{"input": "' + b"x" * 15 * MEGABYTE, 400),
        "15 MB of escapes": (
            "/v1/embeddings",
            b'{"truncate": true, "input": "%s"}' % (b"\\u00e9\\u0020" * (15 * MEGABYTE // 12)),
            200,
        ),
        "a lone surrogate in 4 MB": (
            "/v1/embeddings",
            b'{"truncate": true, "input": "\\ud800%s"}' % (b"xyz " * MEGABYTE),
            200,
        ),
        "4 MB without a space": (
            "/v1/embeddings",
            b'{"truncate": true, "input": "%s"}' % (b"x" * 4 * MEGABYTE),
            400,
        ),
        "deep": ("/v1/embeddings", b"[" * 1_000_000, 400),
    }


@pytest.fixture(scope="module")
def max_callback_s() -> float:
    """How long a callback may take on this machine, in seconds."""
    plain = b'"' + b"x" * 15 * MEGABYTE + b'"'
    best = 1.0
    for _ in range(5):
        began = time.thread_time()
        orjson.loads(plain)
        best = min(best, time.thread_time() - began)
    return max(MAX_CALLBACK_S, 3 * best)


@pytest.mark.parametrize("case", list(expensive_requests()))
async def test_no_callback_takes_the_loop_for_long(
    make_api: MakeApi, slowest: Slowest, case: str, max_callback_s: float
) -> None:
    """No request, even at the limits of what may be sent, blocks the loop for long."""
    api = make_api()
    await post(api, "/v1/embeddings", b'{"input": "warm"}')
    path, body, status = expensive_requests()[case]
    await asyncio.sleep(0)  # what the test itself did is no callback of the server's
    slowest.took_s = 0.0
    answered = await post(api, path, body, x_embed_token_vocab="model")
    assert answered == status
    assert slowest.took_s < max_callback_s, slowest.what


async def test_the_lag_is_measured(make_api: MakeApi) -> None:
    """A callback that blocks the loop for 0.3 s is counted once as a lag above 0.1 s."""
    api = make_api()
    watching = asyncio.create_task(measure_event_loop_lag(api.app.state.metrics))
    await asyncio.sleep(0.15)
    time.sleep(0.3)  # noqa: ASYNC251 - what must not happen
    await asyncio.sleep(0.15)
    watching.cancel()
    text = (await api.client.get("/metrics")).text
    rows = dict(
        line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("nestvec_event_loop")
    )
    late = float(rows["nestvec_event_loop_lag_seconds_count"]) - float(
        rows['nestvec_event_loop_lag_seconds_bucket{le="0.1"}']
    )
    assert late == 1
