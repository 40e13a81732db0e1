"""States of the HTTP/1.1 parser: what is a request, where it ends, what is refused, wherever borders of pieces lie."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.processes.connections.limits import ConnectionLimits
from nestvec.processes.connections.strict_protocol import ReadPhase

from tests.processes.connections.in_memory import (
    FakeTransport,
    SeenRequest,
    serve_in_memory,
    settle,
    written,
)

H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"
WEBSOCKET = (
    b"connection: keep-alive, upgrade\r\nUpgrade: websocket\r\nsec-websocket-version: 13\r\n"
)
TLS = b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n"
NO_TOKEN = b"upgrade: h2c\r\n"
OFFERS = (b"", H2C, WEBSOCKET, TLS, NO_TOKEN)
# A body that looks like headers, offers and a request.
BODY = b"Upgrade: h2c\r\nConnection: upgrade\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: b\r\n\r\n"
SMALL = ConnectionLimits(max_header_bytes=2048)


def plain(offer: bytes, body: bytes, path: bytes = b"/v1/embeddings") -> bytes:
    """A POST with a length."""
    head = b"POST %b HTTP/1.1\r\nhost: a\r\n%bcontent-length: %d\r\n\r\n" % (path, offer, len(body))
    return head + body


def chunked(offer: bytes, body: bytes, tail: bytes = b"", extension: bytes = b"") -> bytes:
    """A POST in chunks of seven bytes."""
    head = (
        b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\n%btransfer-encoding: Chunked\r\n\r\n" % offer
    )
    chunks = [body[at : at + 7] for at in range(0, len(body), 7)]
    lines = [b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
    return head + b"".join(lines) + b"0\r\n" + tail + b"\r\n"


def get(offer: bytes, extra: bytes = b"") -> bytes:
    """A GET without a body."""
    return b"GET /health/live?a=b HTTP/1.1\r\nhost: a\r\n" + offer + extra + b"\r\n"


def message(offer: bytes, body: bytes, kind: str) -> bytes:
    """A request of a kind."""
    if kind == "get":
        return get(offer)
    return plain(offer, body) if kind == "plain" else chunked(offer, body)


async def _exchange(
    pieces: Sequence[bytes], limits: ConnectionLimits | None
) -> tuple[list[SeenRequest], bytes]:
    server = serve_in_memory(limits)
    connection = server.connect()
    for piece in pieces:
        connection.data_received(piece)
        await asyncio.sleep(0)
    await settle()
    return server.app.seen, written(connection)


def exchange(
    *pieces: bytes, limits: ConnectionLimits | None = None
) -> tuple[list[SeenRequest], bytes]:
    """Send pieces, and return the requests that the application got, and the answers."""
    return asyncio.run(_exchange(pieces, limits))


def split(stream: bytes, borders: Sequence[int]) -> list[bytes]:
    """Split bytes at places, given modulo their number."""
    places = sorted({border % (len(stream) + 1) for border in borders} | {0, len(stream)})
    return [stream[a:b] for a, b in pairwise(places)]


@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_of_another_protocol_is_ignored(offer: bytes) -> None:
    """A body of any framing arrives whole behind an offer, in one piece, byte by byte, and with requests behind it."""
    stream = (
        plain(offer, BODY)
        + chunked(offer, BODY)
        + get(offer)
        + plain(offer, b"")
        + plain(b"", b"end")
    )
    for pieces in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        seen, answers = exchange(*pieces)
        assert [request.body for request in seen] == [BODY, BODY, b"", b"", b"end"]
        assert [request.path for request in seen][2] == "/health/live"
        assert answers.count(b"HTTP/1.1 200 OK") == answers.count(b"HTTP/1.1 ") == 5


messages = st.tuples(
    st.sampled_from(OFFERS),
    st.sampled_from((b"", b"x", BODY)),
    st.sampled_from(("plain", "chunked", "get")),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(messages, min_size=1, max_size=4), st.lists(st.integers(0, 10_000), max_size=12))
def test_the_same_bytes_are_the_same_requests(
    sent: list[tuple[bytes, bytes, str]], borders: list[int]
) -> None:
    """Wherever the borders of pieces lie, the application gets the same requests, and the caller the same answers."""
    stream = b"".join(message(offer, body, kind) for offer, body, kind in sent)
    seen, answers = exchange(*split(stream, borders))
    assert [r.body for r in seen] == [b"" if kind == "get" else body for _, body, kind in sent]
    assert (seen, answers) == exchange(stream)


def test_a_hundred_offers_in_one_piece() -> None:
    """Many requests with offers in one piece are all answered, in their order."""
    bodies = [b"%d" % number * (number + 1) for number in range(100)]
    seen, answers = exchange(b"".join(plain(H2C, body) for body in bodies))
    assert [request.body for request in seen] == bodies
    assert answers.count(b"200 OK") == 100


def test_headers_pass_an_offer_unchanged() -> None:
    """The application gets the headers behind an offer as they came, but for the offer."""
    (request,), _ = exchange(
        plain(H2C + b'X-Odd:  a; b="c", d\r\nx-empty:\r\nauthorization: Bearer k\r\n', b"x")
    )
    headers = dict(request.headers)
    assert headers[b"x-odd"] == b'a; b="c", d'
    assert headers[b"x-empty"] == b""
    assert headers[b"authorization"] == b"Bearer k"
    assert b"upgrade" not in headers


HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TWO_LENGTHS = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx"
BOTH = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
REFUSED = {
    "HTTP/2 at once": (HTTP2 + b"\0\0\x12\x04\0\0\0\0\0", 505, b"HTTP/1.1"),
    "HTTP/2 as a version": (b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505, b"HTTP/1.1"),
    "HTTP/0.9": (b"GET /health/live\r\n\r\n", 505, b"HTTP/1.1"),
    "an unknown version": (b"GET / HTTP/1.9\r\nhost: a\r\n\r\n", 400, b"HTTP"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, b"Host"),
    "two hosts": (get(b"", b"Host: a\r\n"), 400, b"Host"),
    "two hosts, HTTP/1.0": (b"GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", 400, b"Host"),
    "a list of hosts": (b"GET / HTTP/1.1\r\nhost: a, b\r\n\r\n", 400, b"Host"),
    "a host with a path": (b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", 400, b"Host"),
    "gzip, chunked": (
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
        b"Content-Encoding",
    ),
    "gzip and chunked": (
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        501,
        b"Content-Encoding",
    ),
    "identity": (
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n",
        501,
        b"chunked",
    ),
    "CONNECT": (b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n" + get(b""), 405, b"CONNECT"),
    "two lengths": (TWO_LENGTHS, 400, b"HTTP"),
    "two lengths behind an offer": (
        TWO_LENGTHS.replace(b"host: a\r\n", b"host: a\r\n" + H2C),
        400,
        b"HTTP",
    ),
    "a length and chunks": (BOTH, 400, b"HTTP"),
    "a length and chunks behind an offer": (
        BOTH.replace(b"host: a\r\n", b"host: a\r\n" + H2C),
        400,
        b"HTTP",
    ),
    "a folded header": (get(b"", b"x: a\r\n b\r\n"), 400, b"HTTP"),
    "bare LF": (b"GET / HTTP/1.1\nhost: a\n\n", 400, b"HTTP"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, b"HTTP"),
    "a URL that is none": (b"GET http://a:b:c/ HTTP/1.1\r\nhost: a\r\n\r\n", 400, b"HTTP"),
    "large headers": (get(b"x: " + b"y" * 3000 + b"\r\n"), 431, b"headers"),
    "large headers behind an offer": (
        plain(H2C + b"x: " + b"y" * 3000 + b"\r\n", b"z"),
        431,
        b"headers",
    ),
    "large trailers": (chunked(b"", BODY, b"x: y\r\n" * 1000), 431, b"trailers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    """What others may read in another way is refused, with a reason and before the application, and closed."""
    stream, status, word = REFUSED[name]
    for pieces in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        seen, answers = exchange(*pieces, get(b""), limits=SMALL)
        assert answers.startswith(b"HTTP/1.1 %d " % status)
        assert word in answers.split(b"\r\n\r\n", 1)[1]
        assert b"connection: close" in answers
        assert answers.count(b"HTTP/1.1 ") == 1
        assert [r for r in seen if r.body is not None and r.body != BODY] == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_behind_a_request(name: str) -> None:
    """A request that came before in the same piece gets its own answer first."""
    stream, status, _ = REFUSED[name]
    _, answers = exchange(plain(H2C, b"first") + stream, limits=SMALL)
    assert answers.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 %d " % status in answers


SERVED = {
    "HTTP/1.0 without a host": b"GET /health/live HTTP/1.0\r\n\r\n",
    "HTTP/1.0 with an offer": b"GET /health/live HTTP/1.0\r\n" + H2C + b"\r\n",
    "an empty host": b"GET / HTTP/1.1\r\nhost:\r\n\r\n",
    "an IPv6 host": b"GET / HTTP/1.1\r\nHost: [::1]:8080 \r\n\r\n",
    "a name with an underscore": b"GET / HTTP/1.1\r\nHost: vector_server:8080\r\n\r\n",
    "empty lines before": b"\r\n\r\n" + get(b""),
}


@pytest.mark.parametrize("name", SERVED)
def test_what_is_served(name: str) -> None:
    """What is odd, but only means one thing, is served."""
    seen, answers = exchange(SERVED[name])
    assert len(seen) == 1
    assert answers.startswith(b"HTTP/1.1 200 OK")


def test_a_body_that_ends_in_one_piece_with_the_next_request() -> None:
    """Bytes of one body are never taken for the framing of the next, however much longer the first one was."""
    first, second = plain(b"", b"x" * 90_000), plain(b"", b"y" * 3000)
    seen, answers = exchange(
        first[:-10], first[-10:] + second[:-2000], second[-2000:], limits=SMALL
    )
    assert [len(request.body or b"") for request in seen] == [90_000, 3000]
    assert answers.count(b"HTTP/1.1 200 OK") == 2


def test_trailers_are_no_headers() -> None:
    """Trailers are dropped: a key in one is none, and the request behind them is the next one (RFC 9110 6.5.1)."""
    tail = b"authorization: Bearer k1\r\nx-checksum: 1\r\nexpect: 100-continue\r\nhost: b\r\nupgrade: h2c\r\n"
    stream = chunked(b"", BODY, tail) + get(b"")
    for pieces in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        seen, answers = exchange(*pieces)
        assert [request.body for request in seen] == [BODY, b""]
        assert not any(
            name in (b"authorization", b"x-checksum") for r in seen for name, _ in r.headers
        )
        assert answers.count(b"HTTP/1.1 ") == 2


async def test_one_trailer_without_end() -> None:
    """A trailer that does not end is refused once it is over the bound, and kept no longer."""
    server = serve_in_memory(SMALL)
    connection = server.connect()
    connection.data_received(chunked(b"", b"x" * 2000)[:-2])
    for _ in range(100):
        connection.data_received(b"x: " + b"y" * 100 if not connection._gap_bytes else b"y" * 100)
    await settle()
    assert connection.phase is ReadPhase.REFUSED
    assert connection._gap_bytes <= 2048 + 103
    assert b" 431 " in written(connection)
    assert server.refused("trailers") == 1


@pytest.mark.parametrize(
    "chunk", [b"1;" + b"a" * 500 + b"\r\nx\r\n", b"1;" + b"a" * 50 + b"\r\nx\r\n"]
)
async def test_extensions_of_chunks_without_end(chunk: bytes) -> None:
    """Extensions of chunks that outgrow the body by far are refused; short ones and chunks of a byte are read."""
    server = serve_in_memory(SMALL)
    connection = server.connect()
    connection.data_received(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
    sent = 0
    while connection.phase is ReadPhase.BODY and sent < 1000:
        connection.data_received(chunk)
        sent += 1
    assert 2 < sent < 70
    await settle()
    assert b" 431 " in written(connection)


def test_chunks_of_one_byte_are_read() -> None:
    """A body in the smallest of chunks, and one whose chunks have short extensions, are read."""
    seen, _ = exchange(chunked(b"", b"x" * 9999, extension=b";a=b"), limits=SMALL)
    assert len(seen[0].body or b"") == 9999
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    seen, _ = exchange(head, *[b"1\r\nx\r\n"] * 999, b"0\r\n\r\n", limits=SMALL)
    assert len(seen[0].body or b"") == 999


async def test_headers_without_end_behind_a_request_that_waits() -> None:
    """Headers are bounded also while an answer is awaited; the answer comes first, then the reason."""
    server = serve_in_memory(SMALL, answering=False)
    connection = server.connect()
    connection.data_received(get(b"") + b"GET / HTTP/1.1\r\nx: ")
    for _ in range(100):
        connection.data_received(b"y" * 100)
    assert connection.phase is ReadPhase.REFUSED
    await settle()
    assert not written(connection)
    server.app.answers.set()
    await settle()
    assert written(connection).startswith(b"HTTP/1.1 200 OK")
    assert b" 431 " in written(connection)


async def test_a_refusal_is_readable() -> None:
    """Our side is ended behind a refusal, and what still comes is dropped for a while, so that it is not reset."""
    server = serve_in_memory()
    connection = server.connect()
    transport = connection.transport
    assert isinstance(transport, FakeTransport)
    connection.data_received(HTTP2)
    connection.data_received(b"\0" * 1000)
    assert transport.is_ended
    assert not transport.is_closing()
    assert not connection.eof_received()
    assert server.refused("malformed") == 1


async def test_a_caller_that_leaves_behind_a_refusal() -> None:
    """A request that was refused amid its body is being answered no more: its caller's end is a departure."""
    server = serve_in_memory(SMALL, answering=False)
    connection = server.connect()
    connection.data_received(chunked(b"", b"x" * 20)[:-2] + b"x: y\r\n" * 1000)
    await settle()
    assert b" 431 " in written(connection)
    assert not connection.eof_received()
