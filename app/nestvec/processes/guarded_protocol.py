"""uvicorn's HTTP protocol with bounds that callers cannot outstay: connections, header bytes, slow writers and readers.

Nothing is timed per request: what each connection is doing is noted in passing, and one sweep a second closes those
that make no progress (slowloris, RFC 9110 15.5.9 for its 408).
"""

import asyncio
import resource
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Final

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from nestvec.observability.metrics import Metrics

SWEEP_S: Final = 1.0
SPARE_FILES: Final = 128  # for the model, the store, and what else opens files
SHORT: Final = {
    408: b"the request came too slowly",
    431: b"the headers are too large",
    503: b"too many connections",
}
REASONS: Final = {
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds on connections.

    Attributes:
        max_connections: Open at once.
        max_header_bytes: Of a request line and its headers.
        header_timeout_s: From the first byte of a request to the end of its headers.
        min_bytes_per_s: Slower bodies and readers are hung up on.
        stall_s: Over which that is measured.
    """

    max_connections: int = 2048
    max_header_bytes: int = 64 * 1024
    header_timeout_s: float = 10.0
    min_bytes_per_s: int = 1024
    stall_s: float = 10.0


class Doing(Enum):
    """What a connection is about."""

    IDLE = 0
    HEADERS = 1
    BODY = 2
    ANSWER = 3


class GuardedProtocol(HttpToolsProtocol):
    """A connection; made by `guarded`, which sets the class's attributes."""

    limits: ClassVar[ConnectionLimits]
    metrics: ClassVar[Metrics]
    doing: Doing = Doing.IDLE
    _since_s: float = 0.0
    _head_bytes: int = 0
    _read_bytes: int = 0
    _unread_bytes: int | None = (
        None  # of the answer, at the last look; None while the reader keeps up
    )
    _unread_since_s: float = 0.0

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """A caller has come."""
        super().connection_made(transport)
        self.metrics.connections.inc()
        if len(self.connections) > self.limits.max_connections:
            self._refuse(503, "too_many")

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        super().connection_lost(exc)
        self.metrics.connections.dec()

    @override
    def data_received(self, data: bytes) -> None:
        """Some of a request."""
        if self.doing in (Doing.IDLE, Doing.HEADERS):
            if self.doing is Doing.IDLE:
                self.doing, self._since_s, self._head_bytes = Doing.HEADERS, time.monotonic(), 0
            self._head_bytes += len(data)
        self._read_bytes += len(data)
        super().data_received(data)
        # What is left of the count is of the body, where the headers ended in this piece.
        if self.doing is Doing.HEADERS and self._head_bytes > self.limits.max_header_bytes:
            self._refuse(431, "headers")

    @override
    def on_headers_complete(self) -> None:
        """The body begins; too many headers are refused also where they came in one piece."""
        size = sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url)
        if size > self.limits.max_header_bytes:
            self._refuse(431, "headers")
            return
        self.doing, self._since_s, self._read_bytes = Doing.BODY, time.monotonic(), 0
        super().on_headers_complete()

    @override
    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        if not self._is_refused:
            super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        """The request is whole."""
        if not self._is_refused:
            self.doing = Doing.ANSWER
            super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        """It was answered."""
        if self.doing is Doing.ANSWER:  # not where the answer came before the body had ended
            self.doing = Doing.IDLE
        super().on_response_complete()

    @override
    def pause_writing(self) -> None:
        """The caller does not read as fast as we write."""
        super().pause_writing()
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._unread_since_s = time.monotonic()

    @override
    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._unread_bytes = None

    def sweep(self, now_s: float) -> None:
        """Hang up if there is no progress.

        Args:
            now_s: Monotonic time.
        """
        limits = self.limits
        if self._unread_bytes is not None and now_s - self._unread_since_s >= limits.stall_s:
            left = self.transport.get_write_buffer_size()
            if self._unread_bytes - left < limits.min_bytes_per_s * limits.stall_s:
                self.metrics.refused_connections.labels("slow_reader").inc()
                self.transport.abort()
                return
            self._unread_bytes, self._unread_since_s = left, now_s
        if self.doing is Doing.HEADERS and now_s - self._since_s > limits.header_timeout_s:
            self._refuse(408, "slow_headers")
        elif self.doing is Doing.BODY and now_s - self._since_s >= limits.stall_s:
            is_ours = self.flow.read_paused  # it is we who do not read
            if not is_ours and self._read_bytes < limits.min_bytes_per_s * limits.stall_s:
                self._refuse(408, "slow_body")
            self._since_s, self._read_bytes = now_s, 0

    @property
    def _is_refused(self) -> bool:
        return self.transport.is_closing()

    def _refuse(self, status: int, reason: str) -> None:
        """Say why, unless an answer is on its way, and hang up."""
        self.metrics.refused_connections.labels(reason).inc()
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request
        if cycle is None or not cycle.response_started or cycle.response_complete:
            said = SHORT[status]
            retry = b"retry-after: 5\r\n" if status == 503 else b""  # noqa: PLR2004 - the status itself
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n%s"
                b"connection: close\r\n\r\n%s" % (status, REASONS[status], len(said), retry, said)
            )
        self.transport.close()


def guarded(limits: ConnectionLimits, metrics: Metrics) -> type[GuardedProtocol]:
    """The protocol with these bounds, which uvicorn makes one of for each connection."""
    attributes: dict[str, Any] = {"limits": limits, "metrics": metrics}
    return type("BoundProtocol", (GuardedProtocol,), attributes)


async def sweep_forever(connections: Callable[[], Iterable[object]]) -> None:
    """Hang up on those that make no progress, as long as the server runs.

    Args:
        connections: Gives those that are open.
    """
    while True:
        await asyncio.sleep(SWEEP_S)
        now_s = time.monotonic()
        for connection in list(connections()):
            if isinstance(connection, GuardedProtocol):
                connection.sweep(now_s)


def most_connections(wanted: int) -> int:
    """As many as wanted, or as the system's bound on open files allows, which is raised as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(16, min(wanted, soft - SPARE_FILES))
