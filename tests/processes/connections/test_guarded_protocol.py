"""Time, silence, and callers that leave: what ends a connection, on a clock that tests move."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from nestvec.api.http.body import BODY_RESERVATION
from nestvec.api.http.body_memory import BodyMemoryBudget, BodyReservation
from nestvec.observability.http_metrics import HttpMetrics
from nestvec.processes.connections.guarded_protocol import GuardedProtocol, bind_protocol
from nestvec.processes.connections.limits import ConnectionLimits
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from tests.processes.connections.in_memory import (
    FakeTransport,
    serve_in_memory,
    settle,
    written,
)

GET = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n"
LIVE = GET.replace(b"/v1/models", b"/health/live")
READY = GET.replace(b"/v1/models", b"/health/ready")
POST = b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n"


def in_s(connection: GuardedProtocol, seconds: float) -> None:
    """Sweep a connection as in so many seconds."""
    connection.sweep(time.monotonic() + seconds)


async def test_a_silent_connection_is_closed() -> None:
    """A connection on which nothing comes is closed after the time for headers, without a word."""
    server = serve_in_memory()
    connection = server.connect()
    in_s(connection, 9)
    assert not connection.transport.is_closing()
    in_s(connection, 11)
    assert connection.transport.is_closing()
    assert not written(connection)
    assert server.refused("silent") == 1


async def test_empty_lines_are_silence() -> None:
    """Empty lines keep no connection open, neither a new one nor one that has been answered."""
    server = serve_in_memory()
    for before in (b"", GET):
        connection = server.connect()
        connection.data_received(before + b"\r\n")
        await settle()
        connection.data_received(b"\r\n")
        in_s(connection, 11)
        assert connection.transport.is_closing()
        assert b" 408 " not in written(connection)


async def test_idle_connections_are_kept_as_proxies_expect() -> None:
    """A connection that has been answered is kept for as long as the server's keep-alive says."""
    server = serve_in_memory()
    connection = server.connect()
    connection.data_received(GET)
    await settle()
    connection.timeout_keep_alive = 75
    in_s(connection, 74)
    assert not connection.transport.is_closing()
    in_s(connection, 76)
    assert connection.transport.is_closing()
    assert not server.refused("silent")


@pytest.mark.parametrize("first", [b"", GET])
async def test_headers_have_a_time(first: bytes) -> None:
    """Headers that are not whole after their time are answered with 408, also behind another request."""
    server = serve_in_memory()
    connection = server.connect()
    connection.data_received(first + GET[:20])
    await settle()
    in_s(connection, 9)
    for byte in GET[20:30]:
        connection.data_received(bytes([byte]))
    assert b" 408 " not in written(connection)
    in_s(connection, 11)
    assert b" 408 " in written(connection)
    assert server.refused("slow_headers") == 1


async def test_a_trickling_body_has_an_end() -> None:
    """A body that comes above the least rate, but too slowly to be whole in time, is answered with 408."""
    server = serve_in_memory(answering=False)
    connection = server.connect()
    connection.data_received(POST)
    await settle()
    ended = None
    for second in range(1, 200):
        connection.data_received(b"x" * 2048)
        await settle()
        in_s(connection, second)
        if b" 408 " in written(connection):
            ended = second
            break
    assert ended is not None
    assert 60 < ended < 72  # a second more for each 16 KiB
    assert server.refused("slow_body") == 1
    await settle()
    assert [request.body for request in server.app.seen] == [None]


async def test_a_large_body_has_its_time() -> None:
    """A large body on a line of 32 KB/s is read for as long as it comes."""
    server = serve_in_memory()
    connection = server.connect()
    connection.data_received(POST.replace(b"1000000", b"10000000"))
    for second in range(10, 300, 10):
        connection.data_received(b"x" * 327_680)
        await settle()
        in_s(connection, second)
    assert not written(connection)


async def test_what_we_do_not_read_is_not_slow() -> None:
    """While reading is paused on our side, the caller's time stands still."""
    server = serve_in_memory()
    connection = server.connect()
    connection.data_received(POST)
    connection.flow.pause_reading()
    for second in range(1, 500):
        in_s(connection, second)
    assert not written(connection)


async def test_a_body_behind_its_answer_is_read_to_its_end_only() -> None:
    """A connection whose answer came before the body had ended is idle once it has, and closed as others are."""
    server = serve_in_memory()
    connection = server.connect()
    connection.data_received(POST)
    await settle()
    connection.cycle.response_started = connection.cycle.response_complete = True
    connection.on_response_complete()
    connection.data_received(b"x" * 1_000_000)
    in_s(connection, connection.timeout_keep_alive + 1)
    assert connection.transport.is_closing()
    assert b" 408 " not in written(connection)


async def test_a_full_server_is_alive_and_not_ready() -> None:
    """Beyond the bound it is said that the server lives, and to everything else that it is full; then it is closed."""
    server = serve_in_memory(ConnectionLimits(max_connections=2))
    for _ in range(2):
        server.connect().data_received(GET[:20])
    for request, status in ((LIVE, b"200"), (READY, b"503"), (GET, b"503"), (POST, b"503")):
        connection = server.connect()
        for byte in request:
            connection.data_received(bytes([byte]))
        await settle()
        assert written(connection).startswith(b"HTTP/1.1 " + status)
        assert (b"retry-after: 5" in written(connection)) is (status == b"503")
        assert b"connection: close" in written(connection)
        connection.transport.close()
        await settle()
    assert server.refused("too_many") == 3
    assert [request.path for request in server.app.seen] == ["/health/live"]


async def test_answers_that_wait_for_readers_are_counted() -> None:
    """What a slow reader leaves in memory is counted for its caller until it is read, or the connection is gone."""
    server = serve_in_memory(answering=False)
    for gone in (False, True):
        connection = server.connect()
        connection.data_received(GET)
        await settle()
        scope: Scope = connection.cycle.scope  # type: ignore[assignment] # the same dict
        scope[BODY_RESERVATION] = BodyReservation(server.memory, owner="key 1")
        transport = connection.transport
        assert isinstance(transport, FakeTransport)
        transport.unread_bytes = 900_000
        connection.pause_writing()
        assert server.memory.held_bytes == 900_000
        transport.unread_bytes = 300_000
        in_s(connection, 1)
        assert server.memory.held_bytes == 300_000
        if gone:
            transport.close()
        else:
            connection.resume_writing()
        await settle()
        assert server.memory.held_bytes == 0


async def test_a_caller_that_ends_its_side_is_answered() -> None:
    """Its pipelined requests are answered, one that is not whole is left, and the connection is closed then."""
    for tail in (b"", GET[:20], POST):
        server = serve_in_memory(answering=False)
        connection = server.connect()
        connection.data_received(GET + GET + tail)
        await settle()
        assert connection.eof_received()
        server.app.answers.set()
        await settle()
        assert written(connection).count(b"HTTP/1.1 200 OK") == 2
        assert written(connection).count(b"HTTP/1.1 ") == 2
        assert connection.transport.is_closing()


@pytest.mark.parametrize("sent", [b"", GET[:20], POST, GET.replace(b"1.1", b"1.0")])
async def test_an_end_that_is_a_departure(sent: bytes) -> None:
    """Who ends a connection amid a request, without one, or in HTTP/1.0, has gone."""
    connection = serve_in_memory(answering=False).connect()
    connection.data_received(sent)
    await settle()
    assert not connection.eof_received()


async def test_every_pipelined_request_hears_of_the_departure() -> None:
    """The request that is being answered is told as well as the last one."""
    server = serve_in_memory(answering=False)
    connection = server.connect()
    connection.data_received(GET)
    await settle()
    first = connection.cycle
    connection.data_received(GET + GET)
    connection.connection_lost(ConnectionResetError())
    assert first.disconnected


class Departures:
    """An application that works until its caller leaves, or for a while; on real sockets."""

    def __init__(self, works_s: float) -> None:
        self.left = asyncio.Event()
        self.begun = asyncio.Event()
        self._works_s = works_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer after a while, unless the caller leaves."""
        del scope
        assert (await receive())["type"] == "http.request"
        self.begun.set()
        try:
            async with asyncio.timeout(self._works_s):
                assert (await receive())["type"] == "http.disconnect"
            self.left.set()
        except TimeoutError:
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"content-length", b"2")],
                }
            )
            await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def serve(app: Departures) -> AsyncIterator[Callable[[], socket.socket]]:
    """Serve on a socket, and give what connects to it."""
    config = uvicorn.Config(app, ws="none", log_config=None, access_log=False, lifespan="off")
    config.load()
    metrics = HttpMetrics(CollectorRegistry())
    protocol = bind_protocol(ConnectionLimits(), metrics, BodyMemoryBudget(10**9))
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config, state, {}), "127.0.0.1", 0
    )

    def connect() -> socket.socket:
        connection = socket.create_connection(server.sockets[0].getsockname(), timeout=5)
        connection.sendall(GET)
        return connection

    yield connect
    server.close()
    await asyncio.gather(*state.tasks)


async def test_half_closed_callers_and_departed_ones() -> None:
    """Who has ended its side only is answered, after an interim answer where it takes long; who has left is noticed."""
    app = Departures(works_s=0.6)
    async with serve(app) as connect:
        caller = connect()
        caller.shutdown(socket.SHUT_WR)
        answer = await asyncio.to_thread(_read, caller)
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")
        assert answer.endswith(b"ok")
        caller.close()
    quick = Departures(works_s=0.05)
    async with serve(quick) as connect:
        caller = connect()
        caller.shutdown(socket.SHUT_WR)
        assert (await asyncio.to_thread(_read, caller)).startswith(b"HTTP/1.1 200 OK")
        caller.close()
    for resets in (False, True):
        app = Departures(works_s=30)
        async with serve(app) as connect:
            caller = connect()
            await app.begun.wait()
            if resets:
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.close()
            async with asyncio.timeout(1):
                await app.left.wait()


def _read(caller: socket.socket) -> bytes:
    """Read until the server ends the connection."""
    answer = b""
    while piece := caller.recv(65_536):
        answer += piece
    return answer
