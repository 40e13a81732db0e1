"""uvicorn's HTTP protocol with bounds on connections, header bytes, and the slowness of writers and readers.

Nothing is timed per request: the phase of each connection is noted in passing, and one sweep a second closes those that
make no progress, as a slowloris attack does (their answer is 408, RFC 9110 15.5.9).
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

from nestvec.observability.http_metrics import HttpMetrics

SWEEP_INTERVAL_S: Final = 1.0
# Open files that connections leave to the model, the store, and whatever else opens files.
SPARE_FILES: Final = 128
MESSAGES: Final = {
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
        max_connections: How many may be open at once.
        max_header_bytes: Size of a request line and its headers.
        header_timeout_s: Time from the first byte of a request to the end of its headers.
        min_bytes_per_s: Rate below which bodies and readers are hung up on.
        stall_s: Time over which that rate is measured.
    """

    max_connections: int = 2048
    max_header_bytes: int = 64 * 1024
    header_timeout_s: float = 10.0
    min_bytes_per_s: int = 1024
    stall_s: float = 10.0


class ConnectionPhase(Enum):
    """What a connection is waiting for, or sending."""

    IDLE = 0
    HEADERS = 1
    BODY = 2
    ANSWER = 3


class GuardedProtocol(HttpToolsProtocol):
    """A connection with bounds; uvicorn makes one for each, of the class that `bind_protocol` gives.

    Attributes:
        limits: Bounds on connections.
        metrics: Count connections.
        phase: What the connection is waiting for, or sending.
    """

    limits: ClassVar[ConnectionLimits]
    metrics: ClassVar[HttpMetrics]
    phase: ConnectionPhase = ConnectionPhase.IDLE
    _since_s: float = 0.0
    _head_bytes: int = 0
    _read_bytes: int = 0
    # Bytes of the answer that were unread at the last sweep; None while the reader keeps up.
    _unread_bytes: int | None = None
    _unread_since_s: float = 0.0

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Count the connection, and refuse it where there are too many."""
        super().connection_made(transport)
        self.metrics.connections.inc()
        if len(self.connections) > self.limits.max_connections:
            self._refuse(503, "too_many")

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection no more."""
        super().connection_lost(exc)
        self.metrics.connections.dec()

    @override
    def data_received(self, data: bytes) -> None:
        """Take a piece of a request, and refuse it where its headers are too large."""
        if self.phase in (ConnectionPhase.IDLE, ConnectionPhase.HEADERS):
            if self.phase is ConnectionPhase.IDLE:
                self.phase, self._since_s, self._head_bytes = (
                    ConnectionPhase.HEADERS,
                    time.monotonic(),
                    0,
                )
            self._head_bytes += len(data)
        self._read_bytes += len(data)
        super().data_received(data)
        # Where the headers ended in this piece, the rest of the count belongs to the body.
        if (
            self.phase is ConnectionPhase.HEADERS
            and self._head_bytes > self.limits.max_header_bytes
        ):
            self._refuse(431, "headers")

    @override
    def on_headers_complete(self) -> None:
        """Begin the body; headers that are too large are refused also where they came in one piece."""
        size = sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url)
        if size > self.limits.max_header_bytes:
            self._refuse(431, "headers")
            return
        self.phase, self._since_s, self._read_bytes = ConnectionPhase.BODY, time.monotonic(), 0
        super().on_headers_complete()

    @override
    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, unless the request was refused."""
        if not self._is_refused:
            super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        """Begin the answer to a whole request, unless it was refused."""
        if not self._is_refused:
            self.phase = ConnectionPhase.ANSWER
            super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        """Wait for the next request."""
        # Not where the answer came before the body had ended.
        if self.phase is ConnectionPhase.ANSWER:
            self.phase = ConnectionPhase.IDLE
        super().on_response_complete()

    @override
    def pause_writing(self) -> None:
        """Note that the caller does not read as fast as we write."""
        super().pause_writing()
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._unread_since_s = time.monotonic()

    @override
    def resume_writing(self) -> None:
        """Note that the caller has caught up."""
        super().resume_writing()
        self._unread_bytes = None

    def sweep(self, now_s: float) -> None:
        """Hang up if the caller makes no progress.

        Args:
            now_s: Monotonic time.
        """
        limits = self.limits
        if self._unread_bytes is not None and now_s - self._unread_since_s >= limits.stall_s:
            unread_bytes = self.transport.get_write_buffer_size()
            if self._unread_bytes - unread_bytes < limits.min_bytes_per_s * limits.stall_s:
                self.metrics.refused_connections.labels("slow_reader").inc()
                self.transport.abort()
                return
            self._unread_bytes, self._unread_since_s = unread_bytes, now_s
        if (
            self.phase is ConnectionPhase.HEADERS
            and now_s - self._since_s > limits.header_timeout_s
        ):
            self._refuse(408, "slow_headers")
        elif self.phase is ConnectionPhase.BODY and now_s - self._since_s >= limits.stall_s:
            # Where reading is paused it is we who do not read.
            if (
                not self.flow.read_paused
                and self._read_bytes < limits.min_bytes_per_s * limits.stall_s
            ):
                self._refuse(408, "slow_body")
            self._since_s, self._read_bytes = now_s, 0

    @property
    def _is_refused(self) -> bool:
        return self.transport.is_closing()

    def _refuse(self, status: int, reason: str) -> None:
        """Answer with the reason, unless another answer is on its way, and hang up."""
        self.metrics.refused_connections.labels(reason).inc()
        # There is none before the first request.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or not cycle.response_started or cycle.response_complete:
            message = MESSAGES[status]
            retry = b"retry-after: 5\r\n" if status == 503 else b""  # noqa: PLR2004 - the status itself
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n%s"
                b"connection: close\r\n\r\n%s"
                % (status, REASONS[status], len(message), retry, message)
            )
        self.transport.close()


def bind_protocol(limits: ConnectionLimits, metrics: HttpMetrics) -> type[GuardedProtocol]:
    """Make the protocol class with these bounds and metrics; uvicorn makes an object of it for each connection."""
    attributes: dict[str, Any] = {"limits": limits, "metrics": metrics}
    return type("BoundProtocol", (GuardedProtocol,), attributes)


async def sweep_forever(connections: Callable[[], Iterable[object]]) -> None:
    """Hang up on callers that make no progress, for as long as the server runs.

    Args:
        connections: Gives the open connections.
    """
    while True:
        await asyncio.sleep(SWEEP_INTERVAL_S)
        now_s = time.monotonic()
        for connection in list(connections()):
            if isinstance(connection, GuardedProtocol):
                connection.sweep(now_s)


def allowed_connections(requested: int) -> int:
    """How many connections may be open: as many as requested, or as the system's bound on open files allows.

    That bound is raised as far as it goes.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return requested
    return max(16, min(requested, soft - SPARE_FILES))
