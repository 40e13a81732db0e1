"""Places for connections: so many for everybody, a few more for health checks, and silence gives its place away."""

import time
from typing import Final, Protocol

from nestvec.processes.connections.limits import HEALTH_CHECK_PLACES

# A new connection may be silent for so long before it has to give way to another.
SILENCE_S: Final = 1.0
# Readiness is not among these: a server that takes no further connection is not ready for more.
LIVENESS_CHECKS: Final = (b"/health/live", b"/v2/health/live")


class PlaceHolder(Protocol):
    """A connection that holds a place."""

    def give_way(self) -> None:
        """Close at once, so that another connection has the place."""


class ConnectionPlaces:
    """Who may hold a connection open.

    When all places are taken, the connection that has been silent for longest since it was opened gives way. Where
    none is, a newcomer gets one of a few places from which it may only ask whether the server is alive; of these the
    oldest whose request has not come gives way, so that a health check, which asks at once, finds a place.

    Args:
        max_connections: How many places there are for everybody.
    """

    def __init__(self, max_connections: int) -> None:
        self.max_connections = max_connections
        # Ordered by time, the oldest first.
        self._silent: dict[PlaceHolder, float] = {}
        self._checking: dict[PlaceHolder, bool] = {}

    def enter(self, newcomer: PlaceHolder, open_count: int) -> bool | None:
        """Find a place for a new connection.

        Args:
            newcomer: The connection.
            open_count: How many are open, this one included.

        Returns:
            Whether it may ask for anything; None: there is no place at all.
        """
        now_s = time.monotonic()
        if open_count - len(self._checking) > self.max_connections:
            oldest, since_s = next(iter(self._silent.items()), (None, now_s))
            if oldest is None or now_s - since_s < SILENCE_S:
                return False if self._enter_for_health_check(newcomer) else None
            self.leave(oldest)
            oldest.give_way()
        self._silent[newcomer] = now_s
        return True

    def speak(self, speaker: PlaceHolder) -> None:
        """Note that a connection is silent no more."""
        self._silent.pop(speaker, None)

    def answer(self, asker: PlaceHolder) -> None:
        """Note that a health check is being answered, and keeps its place."""
        self._checking[asker] = True

    def leave(self, leaver: PlaceHolder) -> None:
        """Give a closed connection's place to others."""
        self._silent.pop(leaver, None)
        self._checking.pop(leaver, None)

    def _enter_for_health_check(self, newcomer: PlaceHolder) -> bool:
        if len(self._checking) >= HEALTH_CHECK_PLACES:
            waiting = next(
                (asker for asker, is_heard in self._checking.items() if not is_heard), None
            )
            if waiting is None:
                return False
            self.leave(waiting)
            waiting.give_way()
        self._checking[newcomer] = False
        return True


def is_liveness_check(target: bytes) -> bool:
    """Whether a request's target is one by which it is asked whether the server is alive."""
    return target.partition(b"?")[0].rstrip(b"/") in LIVENESS_CHECKS
