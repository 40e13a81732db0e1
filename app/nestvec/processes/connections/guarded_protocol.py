"""uvicorn's HTTP protocol with bounds on how many connections there are, and how slow their writers and readers may be.

Nothing is timed per request: what each connection waits for is noted in passing, and one sweep a second closes those
that make no progress, as a slowloris attack does (their answer is 408, RFC 9110 15.5.9).
"""

import asyncio
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

from typing_extensions import override

from nestvec.api.http.body import BODY_RESERVATION
from nestvec.api.http.body_memory import BodyMemoryBudget, BodyReservation
from nestvec.observability.http_metrics import HttpMetrics
from nestvec.processes.connections.limits import ConnectionLimits
from nestvec.processes.connections.places import ConnectionPlaces, is_liveness_check
from nestvec.processes.connections.readers import ReadingRate, taken_bytes_of
from nestvec.processes.connections.refusals import Refusal
from nestvec.processes.connections.strict_protocol import ReadPhase, StrictProtocol

SWEEP_INTERVAL_S: Final = 1.0
# Bytes of a body that add a second to its time: a file of 500 MiB on a slow line is let in, a trickle is not.
BODY_BYTES_PER_EXTRA_S: Final = 16 * 1024
# How long a caller that has ended its side of the connection is left alone before it is asked whether it is there.
PRESENCE_CHECK_S: Final = 0.25


class GuardedProtocol(StrictProtocol):
    """A connection with bounds; uvicorn makes one for each, of the class that `bind_protocol` gives.

    Attributes:
        places: Who may hold a connection open.
        answer_memory: Where the bytes of answers are counted that wait for their readers.
    """

    places: ClassVar[ConnectionPlaces]
    answer_memory: ClassVar[BodyMemoryBudget]
    _is_for_liveness: bool = False
    # When a body was last looked at, and how much of it had come at the beginning of the present `stall_s`.
    _swept_s: float = 0.0
    _stall_since_s: float = 0.0
    _stall_body_bytes: int = 0
    _reading_rate: ReadingRate | None = None
    _held_bytes: int = 0
    _held_for: str = ""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Count the connection, and refuse it where there are too many."""
        super().connection_made(transport)
        self.metrics.connections.inc()
        self._since_s = time.monotonic()
        place = self.places.enter(self, len(self.connections))
        if place is None:
            self._count_closed(Refusal.FULL.value.reason)
            self.phase = ReadPhase.REFUSED
            transport.write(Refusal.FULL.value.to_bytes())
            transport.close()
        self._is_for_liveness = place is False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection no more, and end the work for its requests."""
        super().connection_lost(exc)
        self.metrics.connections.dec()
        self.places.leave(self)
        self._hold(0)
        # uvicorn tells the last request that came, which may be waiting behind the one that is being answered.
        self._disconnect(self._answering)

    @override
    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn's gives nothing, which closes the connection
        """Go on answering a caller that has ended its side only (RFC 9112 9.6), as long as it is there.

        Callers of HTTP/1.0 cannot be asked whether they are, so theirs are closed: nginx's default is to end the
        connection so when its own client has gone.
        """
        cycle = self._answering
        if not self._is_answering or cycle is None or cycle.scope["http_version"] == "1.0":
            return False
        if self.phase is ReadPhase.BODY:  # which will never be whole
            if self.cycle is cycle:
                return False
            self.pipeline.popleft()
        self._has_ended = True
        self.loop.call_later(PRESENCE_CHECK_S, self._check_presence, True)  # noqa: FBT003 - call_later has no keywords
        return True

    @override
    def on_headers_complete(self) -> None:
        """Begin the body and the answer, unless the place is for other requests."""
        if self._is_for_liveness and not is_liveness_check(self.url):
            self._stop(Refusal.FULL)
        super().on_headers_complete()
        if self.phase is ReadPhase.BODY:
            self._swept_s = self._stall_since_s = self._since_s
            self._stall_body_bytes = 0
            if self._is_for_liveness:
                self.places.answer(self)
                self.cycle.keep_alive = False

    @override
    def pause_writing(self) -> None:
        """Note that the caller does not read as fast as we write."""
        super().pause_writing()
        self._hold(self.transport.get_write_buffer_size())
        if self._reading_rate is not None:
            # An answer that is written as it is read pauses many times: who reads too slowly does so over all of it.
            self._reading_rate.resume(time.monotonic())
            return
        self._reading_rate = ReadingRate(
            lambda: taken_bytes_of(self.transport),
            min_bytes_per_s=self.limits.min_bytes_per_s,
            stall_s=self.limits.stall_s,
            now_s=time.monotonic(),
        )

    @override
    def resume_writing(self) -> None:
        """Note that the caller has caught up."""
        super().resume_writing()
        self._hold(0)

    def give_way(self) -> None:
        """Close a connection that has asked for nothing, so that another has its place."""
        self._count_closed("silent")
        self.transport.abort()

    def sweep(self, now_s: float) -> None:
        """Hang up if the caller makes no progress.

        Args:
            now_s: Monotonic time.
        """
        if self._reading_rate is not None and self.flow.write_paused:
            self._hold(self.transport.get_write_buffer_size())
            if self._reading_rate.is_stalled(now_s):
                self._count_closed("slow_reader")
                self.transport.abort()
                return
        if self.phase is ReadPhase.BODY:
            self._sweep_body(now_s)
        elif self.phase is ReadPhase.HEADERS and self.flow.read_paused:  # it is we who do not read
            self._since_s = now_s
        elif self.phase is ReadPhase.HEADERS and self._has_begun:
            if now_s - self._since_s > self.limits.header_timeout_s:
                self._refuse(Refusal.SLOW_HEADERS)
        elif self.phase is not ReadPhase.REFUSED and not self._is_answering:
            self._sweep_waiting(now_s)

    @override
    def _end_silence(self) -> None:
        self.places.speak(self)

    def _sweep_waiting(self, now_s: float) -> None:
        """Close a connection that was silent since it was opened, or since its last request."""
        if self.phase is ReadPhase.IDLE:
            if now_s - self._since_s > self.timeout_keep_alive:
                self.transport.close()
        elif now_s - self._since_s > self.limits.header_timeout_s:
            self._count_closed("silent")
            self.transport.close()

    def _sweep_body(self, now_s: float) -> None:
        limits = self.limits
        if self.flow.read_paused:  # it is we who do not read
            self._since_s += now_s - self._swept_s
            self._stall_since_s, self._stall_body_bytes = now_s, self._body_bytes
        self._swept_s = now_s
        if (
            now_s - self._since_s
            > limits.body_timeout_s + self._body_bytes / BODY_BYTES_PER_EXTRA_S
        ):
            self._refuse(Refusal.SLOW_BODY)
        elif now_s - self._stall_since_s >= limits.stall_s:
            if self._body_bytes - self._stall_body_bytes < limits.min_bytes_per_s * limits.stall_s:
                self._refuse(Refusal.SLOW_BODY)
            self._stall_since_s, self._stall_body_bytes = now_s, self._body_bytes

    def _check_presence(self, is_first: bool) -> None:  # noqa: FBT001 - call_later passes no keywords
        """Find out whether a caller that has ended its side still waits for its answer.

        Its system says nothing of itself. An interim answer, which callers of HTTP/1.1 pass over (RFC 9110 15.2), is
        reset by that of a caller that has gone; and whether that has happened only the socket tells, since nothing is
        read any more.
        """
        cycle = self._answering
        if self.transport.is_closing() or cycle is None or not self._is_answering:
            return
        if is_first and not cycle.response_started:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        connection = self.transport.get_extra_info("socket")
        if connection is not None and connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        self.loop.call_later(PRESENCE_CHECK_S, self._check_presence, False)  # noqa: FBT003 - as above

    def _hold(self, count: int) -> None:
        """Count how many bytes of answers wait in memory for their reader."""
        more = count - self._held_bytes
        if more > 0:
            if not self._held_bytes:
                self._held_for = self._owner()
            self.answer_memory.hold(more, self._held_for)
        elif more < 0:
            self.answer_memory.end_hold(-more, self._held_for)
        self._held_bytes = count

    def _owner(self) -> str:
        """Whose answer is being written, as far as the application has said."""
        reservation: BodyReservation | None = (
            None if self._answering is None else self._answering.scope.get(BODY_RESERVATION)  # type: ignore[assignment] # a key of ours
        )
        return "" if reservation is None else reservation.owner


def bind_protocol(
    limits: ConnectionLimits, metrics: HttpMetrics, answer_memory: BodyMemoryBudget
) -> type[GuardedProtocol]:
    """Make the protocol class with these bounds and metrics; uvicorn makes an object of it for each connection.

    Args:
        limits: Bounds on connections.
        metrics: Count connections.
        answer_memory: Where the bytes of answers are counted that wait for their readers.
    """
    attributes: dict[str, Any] = {
        "limits": limits,
        "metrics": metrics,
        "places": ConnectionPlaces(limits.max_connections),
        "answer_memory": answer_memory,
    }
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
