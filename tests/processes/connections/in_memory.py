"""A connection without a network: a transport that keeps what is written, and an application that tells what it got."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from nestvec.api.http.body_memory import BodyMemoryBudget
from nestvec.observability.http_metrics import HttpMetrics
from nestvec.processes.connections.guarded_protocol import GuardedProtocol, bind_protocol
from nestvec.processes.connections.limits import ConnectionLimits
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send
from typing_extensions import override
from uvicorn.server import ServerState


@dataclass(frozen=True)
class SeenRequest:
    """What the application got of a request; `body` is None where its caller had gone."""

    method: str
    path: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes | None


@dataclass
class TellingApp:
    """An ASGI application that notes each request, and answers it with the length of its body.

    Attributes:
        seen: The requests, in the order in which they were whole.
        answers: Set while answers are given.
    """

    seen: list[SeenRequest] = field(default_factory=list)
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a request, and answer it once answers are given."""
        body: bytes | None = b""
        while body is not None:
            message = await receive()
            if message["type"] == "http.disconnect":
                body = None
                break
            body += message["body"]
            if not message["more_body"]:
                break
        headers = tuple(scope["headers"])
        self.seen.append(SeenRequest(scope["method"], scope["path"], headers, body))
        await self.answers.wait()
        text = str(len(body or b"")).encode()
        length = (b"content-length", str(len(text)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": text})


class FakeTransport(asyncio.Transport):
    """A transport that keeps what is written.

    Attributes:
        written: All of it.
        unread_bytes: What it says its reader has left unread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.unread_bytes = 0
        self.is_ended = self._is_closing = self.is_reading_paused = False
        self.protocol: GuardedProtocol | None = None

    @override
    def write(self, data: Any) -> None:
        """Keep bytes."""
        assert not self.is_ended
        if not self._is_closing:
            self.written += data

    @override
    def write_eof(self) -> None:
        """End our side."""
        self.is_ended = True

    @override
    def can_write_eof(self) -> bool:
        """It can."""
        return True

    @override
    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._is_closing

    @override
    def close(self) -> None:
        """Close, and tell the protocol in the next turn of the loop."""
        if not self._is_closing:
            self._is_closing = True
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    @override
    def abort(self) -> None:
        """Close."""
        self.close()

    @override
    def get_write_buffer_size(self) -> int:
        """What waits for the reader."""
        return self.unread_bytes

    @override
    def pause_reading(self) -> None:
        """Read no more."""
        self.is_reading_paused = True

    @override
    def resume_reading(self) -> None:
        """Read on."""
        self.is_reading_paused = False


@dataclass
class InMemory:
    """A server of connections without a network.

    Attributes:
        protocol_class: What `bind_protocol` gave.
        app: The application behind it.
        memory: Where unread answers are counted.
    """

    app: TellingApp
    memory: BodyMemoryBudget
    protocol_class: type[GuardedProtocol]
    _config: uvicorn.Config
    _state: ServerState = field(default_factory=ServerState)

    def connect(self) -> GuardedProtocol:
        """Open a connection."""
        transport = FakeTransport()
        protocol = self.protocol_class(self._config, self._state, {})
        transport.protocol = protocol
        protocol.connection_made(transport)
        return protocol

    def refused(self, reason: str) -> float:
        """How many connections were closed for a reason."""
        counter = self.protocol_class.metrics.refused_connections.labels(reason)
        return float(counter._value.get())


def serve_in_memory(limits: ConnectionLimits | None = None, *, answering: bool = True) -> InMemory:
    """Serve connections without a network, with bounds."""
    app, memory = TellingApp(), BodyMemoryBudget(10**9)
    if answering:
        app.answers.set()
    config = uvicorn.Config(app, ws="none", log_config=None, access_log=False, lifespan="off")
    config.load()
    metrics = HttpMetrics(CollectorRegistry())
    return InMemory(
        app, memory, bind_protocol(limits or ConnectionLimits(), metrics, memory), config
    )


def written(protocol: GuardedProtocol) -> bytes:
    """Return what was answered on a connection."""
    assert isinstance(protocol.transport, FakeTransport)
    return bytes(protocol.transport.written)


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(500):
        await asyncio.sleep(0)
