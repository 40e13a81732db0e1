"""uvicorn's HTTP protocol, strict about where messages end and deaf to offers of other protocols.

What others might read in another way is refused, so that a proxy and this server never disagree on which bytes are a
request (RFC 9112 11.2); and nothing that stands beside a body is without a bound.
"""

import re
import time
from enum import Enum
from typing import ClassVar, Final

import httptools
from typing_extensions import override
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from nestvec.observability.http_metrics import HttpMetrics
from nestvec.processes.connections.limits import ConnectionLimits
from nestvec.processes.connections.refusals import Refusal

# What chunks may take beside a body, for each of its bytes: a chunk of one byte takes five.
FRAMING_BYTES_PER_BYTE: Final = 16
# How long a refused caller's bytes are read and dropped: closing on unread bytes resets the connection, and the answer
# with it (RFC 9112 9.6).
LINGER_S: Final = 1.0
# The characters of a host name, an address and a port (RFC 3986 3.2.2).
HOST: Final = re.compile(rb"[\w.~!$&'()*+;=%:\[\]-]*[ \t]*")
SPOKEN_VERSIONS: Final = ("1.1", "1.0")


class ReadPhase(Enum):
    """What is read from a connection next."""

    SILENT = 0  # the first byte since it was opened
    IDLE = 1  # a further request
    HEADERS = 2
    BODY = 3  # or the trailers behind it
    REFUSED = 4  # whatever comes is dropped


class RefusedError(Exception):
    """Stops the parser where a request is refused."""


class StrictProtocol(HttpToolsProtocol):
    """A connection whose messages end in one place only.

    Attributes:
        limits: Bounds on connections.
        metrics: Count connections.
        phase: What is read next.
    """

    limits: ClassVar[ConnectionLimits]
    metrics: ClassVar[HttpMetrics]
    phase: ReadPhase = ReadPhase.SILENT
    # When the phase began, by the monotonic clock.
    _since_s: float = 0.0
    _has_begun: bool = False
    _head_bytes: int = 0
    _body_bytes: int = 0
    # What came beside the body: in all, since the last piece of the body, and as whole trailers.
    _framing_bytes: int = 0
    _gap_bytes: int = 0
    _trailer_bytes: int = 0
    _valid_host: bytes | None = None
    _is_upgrade: bool = False
    _has_ended: bool = False
    _refusal: Refusal | None = None
    # The request that is being answered; those behind it wait in `pipeline`.
    _answering: RequestResponseCycle | None = None

    @override
    def data_received(self, data: bytes) -> None:
        """Take a piece of a request, and refuse it where what is no body is too large."""
        phase = self.phase
        if phase is ReadPhase.BODY:
            self._receive_body(data)
            return
        if phase is ReadPhase.REFUSED:
            return
        if phase is ReadPhase.HEADERS:
            self._head_bytes += len(data)
        else:
            if phase is ReadPhase.SILENT:
                self._end_silence()
            self.phase, self._since_s = ReadPhase.HEADERS, time.monotonic()
            self._head_bytes, self._has_begun = len(data), False
        self._parse(data)
        # Where the headers ended in this piece, the rest of the count belongs to the body.
        if self.phase is ReadPhase.HEADERS and self._head_bytes > self.limits.max_header_bytes:
            self._refuse(Refusal.LARGE_HEADERS)

    @override
    def on_message_begin(self) -> None:
        """Begin the headers of a request."""
        if self.phase is not ReadPhase.HEADERS:
            # Behind another request, in one piece with it: how much of the piece is headers is not known.
            self.phase, self._since_s, self._head_bytes = ReadPhase.HEADERS, time.monotonic(), 0
        self._has_begun = True
        super().on_message_begin()

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one behind the body is a trailer, which is never taken for a header (RFC 9110 6.5.1)."""
        if self.phase is ReadPhase.BODY:
            self._trailer_bytes += len(name) + len(value) + 4
            if self._trailer_bytes > self.limits.max_header_bytes:
                self._stop(Refusal.LARGE_TRAILERS)
            return
        # As uvicorn's, which is not called: it would cost more than it does, once for each header.
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    @override
    def on_headers_complete(self) -> None:
        """Check the headers, and begin the body and the answer."""
        self._check_headers()
        parser = self.parser
        if parser.should_upgrade():
            if parser.get_method() == b"CONNECT":
                self._stop(Refusal.TUNNEL)
            self._is_upgrade = True
            return
        super().on_headers_complete()
        self.phase, self._since_s = ReadPhase.BODY, time.monotonic()
        self._body_bytes = self._framing_bytes = self._gap_bytes = self._trailer_bytes = 0

    @override
    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        """Wait for the next request."""
        if self._is_upgrade:  # the parser ends the message here, though it does not end
            return
        self.phase, self._since_s = ReadPhase.IDLE, time.monotonic()
        super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        """Answer the request behind, or what was to be said before the connection is closed."""
        # As uvicorn's, but for its timer: the sweep closes idle connections.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.phase is ReadPhase.IDLE:
            self._since_s = time.monotonic()
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._say_refusal(self._refusal)
        elif self._has_ended:
            self.transport.close()

    @property
    def _is_answering(self) -> bool:
        """Whether an answer is under way, or to come for a request whose headers are read."""
        return self._answering is not None and not self._answering.response_complete

    @override
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _end_silence(self) -> None:
        """Take note of the first bytes on a connection."""

    def _check_headers(self) -> None:
        """Refuse headers that are too large, or whose message would be read in another way by others."""
        size, hosts = len(self.url), 0
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            if name == b"host":
                hosts += 1
                if value != self._valid_host:
                    if HOST.fullmatch(value) is None:
                        self._stop(Refusal.HOST)
                    self._valid_host = value
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                self._stop(Refusal.TRANSFER_CODING)
        if size > self.limits.max_header_bytes:
            self._stop(Refusal.LARGE_HEADERS)
        version = self.parser.get_http_version()
        if version not in SPOKEN_VERSIONS:
            self._stop(Refusal.VERSION)
        if hosts != 1 and (hosts or version != "1.0"):
            self._stop(Refusal.HOST)

    def _receive_body(self, data: bytes) -> None:
        """Take a piece of a body, and refuse it where its framing is too large for what it holds."""
        body_bytes, cycle = self._body_bytes, self.cycle
        self._parse(data)
        # Behind the end of this body another one has begun: how much of the piece is of which is not known.
        if self.phase is not ReadPhase.BODY or self.cycle is not cycle:
            return
        got_bytes = self._body_bytes - body_bytes
        self._framing_bytes += len(data) - got_bytes
        self._gap_bytes = 0 if got_bytes else self._gap_bytes + len(data)
        allowed_bytes = self.limits.max_header_bytes
        if (
            self._gap_bytes > allowed_bytes
            or self._framing_bytes > allowed_bytes + FRAMING_BYTES_PER_BYTE * self._body_bytes
        ):
            self._refuse(Refusal.LARGE_TRAILERS)

    def _parse(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        try:
            self.parser.feed_data(rest)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrades(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse_parsed()

    def _decline_upgrades(self, rest: memoryview) -> None:
        """Go on behind headers that offer another protocol, as if they did not (RFC 9110 7.8).

        The parser takes what follows for the other protocol. Another one gets the same headers without the offer, and
        then the rest; nothing is searched for in bytes, so a body is never touched.

        Args:
            rest: What has come behind the headers.
        """
        while True:
            head = [
                b"%b %b HTTP/%b\r\n"
                % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
            ]
            head += [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
            self._is_upgrade = False
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
            try:
                self.parser.feed_data(b"".join((*head, b"\r\n")))
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
            except httptools.HttpParserError:
                self._refuse_parsed()
                return
            else:
                return

    def _stop(self, refusal: Refusal) -> None:
        """Refuse a request from within a callback of the parser.

        Raises:
            RefusedError: Always; the parser ends with it.
        """
        self._refusal = refusal
        raise RefusedError

    def _refuse_parsed(self) -> None:
        """Refuse what the parser has ended with."""
        refusal = self._refusal
        if refusal is None:
            is_http2 = (
                self.parser.get_method() == b"PRI"
            )  # the first bytes of HTTP/2 (RFC 9113 3.4)
            refusal = Refusal.VERSION if is_http2 else Refusal.MALFORMED
        self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        """Read no more requests, and say why: at once, or behind the answers to the requests before."""
        self._count_closed(refusal.value.reason)
        self._refusal = refusal
        is_in_body, self.phase = self.phase is ReadPhase.BODY, ReadPhase.REFUSED
        own = self.cycle
        if is_in_body and own is not self._answering:
            self.pipeline.popleft()
        elif is_in_body:
            if own.response_started:  # there is no way left to say why
                self.transport.close()
            else:
                self._say_refusal(refusal)
            self._disconnect(own)
            self._answering = None
            return
        if not self._is_answering:
            self._say_refusal(refusal)

    def _say_refusal(self, refusal: Refusal) -> None:
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self.transport.write(refusal.value.to_bytes())
        if self._has_ended or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _count_closed(self, reason: str) -> None:
        self.metrics.refused_connections.labels(reason).inc()

    @staticmethod
    def _disconnect(cycle: RequestResponseCycle | None) -> None:
        """Tell the application that nobody waits for an answer."""
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
