"""Bounds on connections of a real server: slow, greedy and endless callers are hung up on, others never notice."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from nestvec.config.settings import Settings
from nestvec.main import build_app
from nestvec.processes.connections.guarded_protocol import GuardedProtocol, bind_protocol
from nestvec.processes.connections.limits import ConnectionLimits
from nestvec.processes.web_server import HttpServer, make_server

from tests.support.served import serve_fake

BODY = json.dumps({"input": "alpha"}).encode()
HEAD = f"POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(BODY)}\r\n\r\n".encode()
QUICK = {"header_timeout_s": 0.3, "max_connections": 5, "max_header_bytes": 4096}


@asynccontextmanager
async def serving(folder: Path, tokenizer: Path, **settings: Any) -> AsyncIterator[HttpServer]:
    """Serve with a fake engine, on a free port of this process; connections are swept twenty times a second."""
    values: dict[str, Any] = {"data_dir": folder, "drain_timeout_s": 1, **settings}
    server_settings = Settings(**values)
    app = build_app(server_settings)
    served = serve_fake(tokenizer, also_tell=app.state.metrics.engine)
    server = make_server(app, server_settings)
    protocol = bind_protocol(
        ConnectionLimits(
            server_settings.max_connections,
            server_settings.max_header_bytes,
            server_settings.header_timeout_s,
            server_settings.body_timeout_s,
            256 * 1024,
            0.4,
        ),
        app.state.metrics.http,
        app.state.body_memory,
    )
    server.config.http = protocol
    server.config.port = 0
    server.config.lifespan = "off"
    server.config.load()
    task = asyncio.create_task(server._serve())
    sweep = asyncio.create_task(_sweep(server))
    while not server.started:
        await asyncio.sleep(0.01)
    app.state.become_ready(served.service)
    try:
        yield server
    finally:
        sweep.cancel()
        for connection in list(server.server_state.connections):
            assert isinstance(connection, GuardedProtocol)
            connection.transport.abort()
        server.should_exit = server.force_exit = True
        await task
        await asyncio.to_thread(served.service.close)


async def _sweep(server: HttpServer) -> None:
    while True:
        await asyncio.sleep(0.05)
        for connection in list(server.server_state.connections):
            assert isinstance(connection, GuardedProtocol)
            connection.sweep(time.monotonic())


@pytest.fixture
async def server(tmp_path: Path, tiny_folder: Path) -> AsyncIterator[HttpServer]:
    """A server with bounds that a test does not have to wait long for."""
    async with serving(tmp_path, tiny_folder / "tokenizer.json", **QUICK) as server:
        yield server


def port_of(server: HttpServer) -> int:
    """The port on which a server listens."""
    return int(server.servers[0].sockets[0].getsockname()[1])


async def open_to(server: HttpServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a bare connection to a server."""
    return await asyncio.open_connection("127.0.0.1", port_of(server))


async def answer_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Read everything until the server hangs up."""
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b"(reset)"
    finally:
        await hang_up(writer)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection, whatever state it is in."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def refused(server: HttpServer, reason: str) -> float:
    """The number of connections that were closed for a reason."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{port_of(server)}/metrics")).text
    line = f'nestvec_refused_connections_total{{reason="{reason}"}} '
    return next((float(row.split()[-1]) for row in text.splitlines() if row.startswith(line)), 0.0)


async def works(server: HttpServer) -> bool:
    """Whether a caller with good manners is served."""
    async with httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{port_of(server)}/v1/embeddings"
        return (await client.post(url, content=BODY)).is_success


async def test_headers_that_come_too_slowly(server: HttpServer) -> None:
    """Headers that come byte by byte, or stop after the first ones, are answered with 408."""
    for drip in (True, False):
        reader, writer = await open_to(server)
        writer.write(HEAD[:10])
        for byte in HEAD[10:40] if drip else b"":
            await asyncio.sleep(0.02)
            if writer.is_closing():
                break
            writer.write(bytes([byte]))
        answer = await answer_of(reader, writer)
        # Whoever goes on sending may find the connection reset before the answer is read.
        assert b" 408 " in answer or (drip and answer == b"(reset)")
    assert await works(server)
    assert await refused(server, "slow_headers") == 2


async def test_a_body_that_comes_too_slowly(server: HttpServer) -> None:
    """A body below the rate is answered with 408; a quick large one passes."""
    reader, writer = await open_to(server)
    writer.write(HEAD.replace(str(len(BODY)).encode(), b"5000"))
    # All before the time is up: what comes to a closed connection resets it, and the answer is lost.
    for _ in range(2):
        writer.write(b" ")
        await asyncio.sleep(0.05)
    assert b" 408 " in await answer_of(reader, writer)
    assert await refused(server, "slow_body") == 1
    large = json.dumps({"input": "alpha", "user": "x" * 3_000_000})
    async with httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{port_of(server)}/v1/embeddings"
        assert (await client.post(url, content=large)).is_success


async def test_a_reader_that_reads_nothing(server: HttpServer) -> None:
    """A caller that asks for a large answer and leaves it in the pipe is hung up on, and the memory taken back."""
    # The kernel would take many megabytes for a reader that is merely slow.
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(0)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port_of(server)))
    reader, writer = await asyncio.open_connection(sock=connection, limit=4096)
    body = json.dumps({"inputs": ["alpha beta gamma delta"] * 2000}).encode()
    request = (
        f"POST /embed_all HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    writer.write(request * 4)  # pipelined
    async with asyncio.timeout(60):
        while not await refused(server, "slow_reader"):
            await asyncio.sleep(0.05)
    await hang_up(writer)
    del reader
    assert await works(server)


async def test_headers_without_end(server: HttpServer) -> None:
    """Headers that are too large are answered with 431, in one piece and in many."""
    for piece in (5000, 300):
        reader, writer = await open_to(server)
        writer.write(b"GET / HTTP/1.1\r\n")
        for number in range(0, 6000, piece):
            if writer.is_closing():
                break
            writer.write(b"x-%d: %s\r\n" % (number, b"a" * piece))
            await asyncio.sleep(0.005)
        writer.write(b"\r\n")
        answer = await answer_of(reader, writer)
        assert b" 431 " in answer or answer == b"(reset)"
    assert await refused(server, "headers") == 2
    assert await works(server)


async def test_too_many_connections(server: HttpServer) -> None:
    """Further connections are told to come again, those that are open are served, and closed ones make room."""
    held = [await open_to(server) for _ in range(5)]
    reader, writer = await open_to(server)
    writer.write(HEAD + BODY)
    answer = await answer_of(reader, writer)
    assert b" 503 " in answer
    assert b"retry-after: 5" in answer
    reader, writer = held[0]
    writer.write(HEAD + BODY)
    assert b"200 OK" in await reader.readuntil(b"\r\n")
    for _, writer in held:
        await hang_up(writer)
    await asyncio.sleep(0.1)
    assert await works(server)
    assert await refused(server, "too_many") == 1


async def test_idle_and_pipelined_connections_are_left_alone(server: HttpServer) -> None:
    """A connection is kept well beyond the time for headers, and may send two requests at once."""
    reader, writer = await open_to(server)
    for _ in range(2):
        writer.write((HEAD + BODY) * 2)
        for _ in range(2):
            assert b"200 OK" in await reader.readuntil(b"\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.splitlines()
                if line.lower().startswith(b"content-length")
            )
            await reader.readexactly(length)
        await asyncio.sleep(0.6)
    await hang_up(writer)
    assert not await refused(server, "slow_headers")


async def test_what_is_no_http_is_hung_up_on(server: HttpServer) -> None:
    """TLS to a plain port, binary noise, and a request line without end are hung up on."""
    for noise in (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"\x16\x03\x01\x02\x00\x01\x00",
        bytes(range(256)),
        b"A" * 100_000,
    ):
        reader, writer = await open_to(server)
        writer.write(noise + b"\r\n\r\n")
        answer = await answer_of(reader, writer)
        assert any(status in answer for status in (b" 400 ", b" 431 ", b" 505 "))
    assert await works(server)


async def test_silent_connections_leave_room(server: HttpServer) -> None:
    """Connections that say nothing are closed without a word, and others are served again."""
    held = [await open_to(server) for _ in range(5)]
    for reader, writer in held:
        assert await answer_of(reader, writer) == b""
    assert await works(server)
    assert await refused(server, "silent") == 5


async def test_a_steady_reader_is_left_alone(server: HttpServer) -> None:
    """A reader at twice the least rate gets a large answer whole, however its system acknowledges."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    connection.settimeout(0)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, ("127.0.0.1", port_of(server)))
    body = json.dumps({"inputs": ["alpha beta gamma delta"] * 1000}).encode()
    head = f"POST /embed_all HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    await loop.sock_sendall(connection, head + body)
    got, begun_s, whole = 0, time.monotonic(), None
    while whole is None or got < whole:
        async with asyncio.timeout(10):
            piece = await loop.sock_recv(connection, 65_536)
        assert piece
        if whole is None:
            head, _, _ = piece.partition(b"\r\n\r\n")
            lengths = [line for line in head.split(b"\r\n") if line.startswith(b"content-length")]
            whole = len(head) + 4 + int(lengths[0].split(b":")[1])
        got += len(piece)
        await asyncio.sleep(max(0, got / (512 * 1024) - (time.monotonic() - begun_s)))
    connection.close()
    assert got > 256 * 1024
    assert not await refused(server, "slow_reader")
