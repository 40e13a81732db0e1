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
from nestvec.processes.guarded_protocol import ConnectionLimits, GuardedProtocol, guarded
from nestvec.processes.web_server import Server, make_server

from tests.support.served import serve_fake

BODY = json.dumps({"input": "alpha"}).encode()
HEAD = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: {len(BODY)}\r\n\r\n".encode()
QUICK = {"header_timeout_s": 0.3, "max_connections": 5, "max_header_bytes": 4096}


@asynccontextmanager
async def serving(folder: Path, tokenizer: Path, **settings: Any) -> AsyncIterator[Server]:
    """A server with a fake engine, on a free port of this process; sweeps ten times a second."""
    given: dict[str, Any] = {"data_dir": folder, "drain_timeout_s": 1, **settings}
    chosen = Settings(**given)
    app = build_app(chosen)
    served = serve_fake(tokenizer, also_tell=app.state.metrics)
    server = make_server(app, chosen)
    limits = guarded(
        ConnectionLimits(
            chosen.max_connections, chosen.max_header_bytes, chosen.header_timeout_s, 1024, 0.4
        ),
        app.state.metrics,
    )
    server.config.http = limits
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
        server.should_exit = server.force_exit = True
        await task
        await asyncio.to_thread(served.service.close)


async def _sweep(server: Server) -> None:
    while True:
        await asyncio.sleep(0.05)
        for connection in list(server.server_state.connections):
            assert isinstance(connection, GuardedProtocol)
            connection.sweep(time.monotonic())


@pytest.fixture
async def server(tmp_path: Path, tiny_folder: Path) -> AsyncIterator[Server]:
    """With bounds that a test does not wait long for."""
    async with serving(tmp_path, tiny_folder / "tokenizer.json", **QUICK) as made:
        yield made


def port_of(server: Server) -> int:
    """Where it listens."""
    return int(server.servers[0].sockets[0].getsockname()[1])


async def open_to(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare connection."""
    return await asyncio.open_connection("127.0.0.1", port_of(server))


async def answer_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """All that comes until the server hangs up."""
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b"(reset)"
    finally:
        await hang_up(writer)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection, however it stands with it."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def refused(server: Server, reason: str) -> float:
    """How many connections were closed for a reason."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{port_of(server)}/metrics")).text
    line = f'nestvec_refused_connections_total{{reason="{reason}"}} '
    return next((float(row.split()[-1]) for row in text.splitlines() if row.startswith(line)), 0.0)


async def works(server: Server) -> bool:
    """A caller with good manners is served."""
    async with httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{port_of(server)}/v1/embeddings"
        return (await client.post(url, content=BODY)).is_success


async def test_headers_that_come_too_slowly(server: Server) -> None:
    """Byte by byte, and not at all after the first ones."""
    for drip in (True, False):
        reader, writer = await open_to(server)
        writer.write(HEAD[:10])
        for byte in HEAD[10:40] if drip else b"":
            await asyncio.sleep(0.02)
            if writer.is_closing():
                break
            writer.write(bytes([byte]))
        found = await answer_of(reader, writer)
        # Whoever goes on sending may find the connection reset before the answer is read.
        assert b" 408 " in found or (drip and found == b"(reset)")
    assert await works(server)
    assert await refused(server, "slow_headers") == 2


async def test_a_body_that_comes_too_slowly(server: Server) -> None:
    """Below the bytes a second; a quick large one passes."""
    reader, writer = await open_to(server)
    writer.write(HEAD.replace(str(len(BODY)).encode(), b"5000"))
    for _ in range(5):
        writer.write(b" ")
        await asyncio.sleep(0.05)
    assert b" 408 " in await answer_of(reader, writer)
    assert await refused(server, "slow_body") == 1
    large = json.dumps({"input": "alpha", "user": "x" * 3_000_000})
    async with httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{port_of(server)}/v1/embeddings"
        assert (await client.post(url, content=large)).is_success


async def test_a_reader_that_reads_nothing(server: Server) -> None:
    """It asks for a large answer and leaves it in the pipe: the memory is taken back."""
    # The kernel would take many megabytes for a reader that is merely slow.
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(0)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port_of(server)))
    reader, writer = await asyncio.open_connection(sock=connection, limit=4096)
    body = json.dumps({"inputs": ["alpha beta gamma delta"] * 2000}).encode()
    request = (
        f"POST /embed_all HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    writer.write(request * 20)  # pipelined
    async with asyncio.timeout(60):
        while not await refused(server, "slow_reader"):
            await asyncio.sleep(0.05)
    await hang_up(writer)
    del reader
    assert await works(server)


async def test_headers_without_end(server: Server) -> None:
    """In one piece and in many."""
    for piece in (5000, 300):
        reader, writer = await open_to(server)
        writer.write(b"GET / HTTP/1.1\r\n")
        for number in range(0, 6000, piece):
            if writer.is_closing():
                break
            writer.write(b"x-%d: %s\r\n" % (number, b"a" * piece))
            await asyncio.sleep(0.005)
        writer.write(b"\r\n")
        found = await answer_of(reader, writer)
        assert b" 431 " in found or found == b"(reset)"
    assert await refused(server, "headers") == 2
    assert await works(server)


async def test_too_many_connections(server: Server) -> None:
    """Further ones are told to come again; those that are there are served, and places are free again."""
    held = [await open_to(server) for _ in range(5)]
    reader, writer = await open_to(server)
    found = await answer_of(reader, writer)
    assert b" 503 " in found
    assert b"retry-after: 5" in found
    reader, writer = held[0]
    writer.write(HEAD + BODY)
    assert b"200 OK" in await reader.readuntil(b"\r\n")
    for _, writer in held:
        await hang_up(writer)
    await asyncio.sleep(0.1)
    assert await works(server)
    assert await refused(server, "too_many") == 1


async def test_idle_and_pipelined_connections_are_left_alone(server: Server) -> None:
    """Kept alive well beyond the time for headers, and asked twice at once."""
    reader, writer = await open_to(server)
    await asyncio.sleep(0.6)
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


async def test_what_is_no_http_is_hung_up_on(server: Server) -> None:
    """TLS to a plain port, binary noise, a request line without end."""
    for noise in (b"\x16\x03\x01\x02\x00\x01\x00", bytes(range(256)), b"A" * 100_000):
        reader, writer = await open_to(server)
        writer.write(noise + b"\r\n\r\n")
        found = await answer_of(reader, writer)
        assert found == b"(reset)" or b" 400 " in found or b" 431 " in found
    assert await works(server)
