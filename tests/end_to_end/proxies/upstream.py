"""A server as the test wants it: ready or not, slow, refusing, or gone in the middle of a request."""

import asyncio
import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

READY_PATH: Final = "/health/ready"
PHRASES: Final = {200: "OK", 429: "Too Many Requests", 503: "Service Unavailable"}


@dataclass
class Upstream:
    """A server on a port of its own, for use with `async with`.

    Attributes:
        name: Stands in its answers.
        is_ready: What it says when it is asked for its health.
        status: What it answers with; 429 and 503 come with Retry-After.
        delay_s: How long each answer takes.
        drops: Whether it closes the connection once it has read a request.
        requests: How often each method and path came.
        checks: How often its health was asked for.
        headers: Those of the last request.
        body: That of the last request.
        left: How many callers closed their connection before their answer.
        port: Where it listens.
    """

    name: str
    is_ready: bool = True
    status: int = 200
    delay_s: float = 0.0
    drops: bool = False
    retry_after_s: int = 7
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    checks: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    left: int = 0
    port: int = 0
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def __aenter__(self) -> "Upstream":
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def listen(self) -> None:
        """Begin to listen, on the port that it had if it had one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Close the port and all connections."""
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def count(self) -> int:
        """How many requests came, but for questions of health."""
        return self.requests.total()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await _read_body(reader, headers)
        if target == READY_PATH:
            self.checks += 1
            _write(writer, 200 if self.is_ready else 503, b"{}", 5)
            return headers.get("connection", "").lower() != "close"
        self.requests[(method, target.partition("?")[0])] += 1
        self.headers, self.body = headers, body
        if self.drops:
            return False
        if self.delay_s:
            gone = asyncio.ensure_future(reader.read(1))
            await asyncio.wait([gone], timeout=self.delay_s)
            if gone.done():
                self.left += 1
                return False
            gone.cancel()
            await asyncio.wait([gone])
        answer = json.dumps({"server": self.name, "error": {"code": str(self.status)}}).encode()
        _write(writer, self.status, answer, self.retry_after_s if self.status != 200 else 0)
        await writer.drain()
        return headers.get("connection", "").lower() != "close"


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", 0)))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


def _write(writer: asyncio.StreamWriter, status: int, body: bytes, retry_after_s: int) -> None:
    retry = f"retry-after: {retry_after_s}\r\n" if retry_after_s else ""
    head = (
        f"HTTP/1.1 {status} {PHRASES[status]}\r\ncontent-type: application/json\r\n{retry}"
        f"content-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
