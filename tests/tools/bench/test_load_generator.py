"""The load generator against small real servers: it counts right, keeps its rate, and survives faults."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import islice, pairwise

import numpy as np
import pytest
from nestvec.tools.bench.client import Connection, Target
from nestvec.tools.bench.load_generator import arrivals, closed_load, embedding_requests, open_load

# One entry for each connection that the servers below have accepted.
opened: list[None] = []
Handler = Callable[[bytes], Awaitable[bytes]]
GOOD = b'{"data": [], "usage": {"prompt_tokens": 7, "total_tokens": 7}}'


def http(status: int, body: bytes, extra: str = "") -> bytes:
    """Return an HTTP response."""
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Target]:
    """Serve each request's body by the handler's bytes; empty bytes close the connection."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(None)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                response = await handler(await reader.readexactly(length))
                writer.write(response)
                await writer.drain()
                if not response or b"connection: close" in response:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Target("127.0.0.1", port, "/v1/embeddings")
    finally:
        server.close()


async def good(body: bytes) -> bytes:
    """Respond with 200 to whatever is sent."""
    assert json.loads(body)["encoding_format"] == "base64"
    return http(200, GOOD)


async def test_a_closed_load_sends_each_request_once() -> None:
    """A closed load sends each request once, and counts texts and tokens."""
    async with serving(good) as target:
        source = islice(embedding_requests(["a", "b"], 3, "m"), 40)
        result = await closed_load(target, source, connections=5, duration_s=30)
    assert result.statuses == {200: 40}
    assert (result.texts, result.tokens, result.errors) == (120, 280, 0)
    assert 0 < result.percentile_s(50) <= result.percentile_s(100)


async def test_a_closed_load_ends_with_its_time() -> None:
    """A closed load ends with its time, however many requests there are."""
    async with serving(good) as target:
        result = await closed_load(
            target, embedding_requests(["a"], 1, ""), connections=2, duration_s=0.2
        )
    assert result.texts == len(result.latencies_s) > 2
    assert result.duration_s < 5


async def test_texts_are_unique() -> None:
    """Texts are unique, so that no cache of the server can help."""
    bodies = [
        json.loads(r.body)["input"] for r in islice(embedding_requests(["a", "b"], 2, ""), 100)
    ]
    texts = [text for body in bodies for text in body]
    assert len(set(texts)) == 200


async def test_errors_are_counted_apart() -> None:
    """Errors are counted by status, and have no latency that would flatter the percentiles."""
    answers = iter(
        [http(200, GOOD), http(429, b"{}"), http(500, b""), b"", b"nonsense\r\n\r\n"] * 4
    )

    async def handler(_: bytes) -> bytes:
        return next(answers)

    async with serving(handler) as target:
        source = islice(embedding_requests(["a"], 1, ""), 20)
        result = await closed_load(target, source, connections=1, duration_s=30)
    assert result.statuses == {200: 4, 429: 4, 500: 4, 0: 8}
    assert (len(result.latencies_s), result.texts, result.errors) == (4, 4, 16)


async def test_an_open_load_counts_time_from_when_requests_were_due() -> None:
    """A server that stalls makes all that fell due meanwhile late: there is no coordinated omission."""
    free = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.call_later(0.6, free.set)

    async def handler(_: bytes) -> bytes:
        await free.wait()
        return http(200, GOOD)

    async with serving(handler) as target:
        result = await open_load(
            target, embedding_requests(["a"], 1, ""), rate_per_s=50, duration_s=1.0, seed=1
        )
    late = [latency for latency in result.latencies_s if latency > 0.1]
    assert len(result.latencies_s) == len(list(arrivals(50, 1.0, 1)))
    assert 10 < len(late) < len(result.latencies_s)
    # Those due first waited for the whole stall, later ones for what was left of it.
    assert max(late) > 0.5
    assert np.std(late) > 0.05


async def test_an_open_load_sends_on_whatever_happens() -> None:
    """An open load sends every request, though none is answered."""
    seen = 0

    async def handler(_: bytes) -> bytes:
        nonlocal seen
        seen += 1
        return b""

    async with serving(handler) as target:
        result = await open_load(
            target, embedding_requests(["a"], 1, ""), rate_per_s=100, duration_s=0.5
        )
    assert seen == result.statuses[0] > 20
    assert not result.latencies_s
    assert np.isnan(result.percentile_s(99))


async def test_a_server_that_is_not_there() -> None:
    """Requests to a server that is not there are counted, without an endless spin."""
    async with serving(good) as target:
        pass
    result = await closed_load(
        target, embedding_requests(["a"], 1, ""), connections=2, duration_s=0.2
    )
    assert set(result.statuses) == {0}
    assert result.statuses[0] < 100


@pytest.mark.parametrize("rate", [1.0, 20.0, 500.0])
def test_arrivals_keep_the_rate(rate: float) -> None:
    """Arrivals are in order, inside the time, and about as many as the rate asks for."""
    due = list(arrivals(rate, 2000 / rate, 3))
    assert all(a < b for a, b in pairwise(due))
    assert 0 < due[0] < due[-1] < 2000 / rate
    assert 1800 < len(due) < 2200


async def test_a_connection_is_kept_and_opened_again() -> None:
    """A connection is kept, and opened again where the server closed it; bodies in pieces come whole."""
    opened.clear()

    async def handler(body: bytes) -> bytes:
        return http(200, body * 1000, "connection: close\r\n" if body == b'"last"' else "")

    async with serving(handler) as target:
        connection = Connection(target)
        for body in (b'"one"', b'"last"', b'"three"'):
            response = await connection.post(body)
            assert (response.status, response.body) == (200, body * 1000)
        await connection.close()
        await connection.close()
    assert len(opened) == 2


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host:81/v1/x", ("host", 81, "/v1/x", False)),
        ("https://host", ("host", 443, "/", True)),
        ("http://[::1]:9/a", ("::1", 9, "/a", False)),
    ],
)
def test_urls(url: str, expected: tuple[str, int, str, bool]) -> None:
    """A URL is split into host, port, path and scheme, with the scheme's port by default."""
    target = Target.parse(url)
    assert (target.host, target.port, target.path, target.is_tls) == expected


@pytest.mark.parametrize("url", ["", "host:80", "ftp://host", "http://"])
def test_what_is_no_url(url: str) -> None:
    """A text that is no URL is an error that quotes it."""
    with pytest.raises(ValueError, match="not an http"):
        Target.parse(url)
