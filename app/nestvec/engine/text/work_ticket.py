"""WorkTicket: what long work for a call asks between two slices, so that it ends with the call. Pure."""

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Self

from nestvec.errors import DeadlineError


class WorkTicket:
    """Says whether anybody still waits for a piece of work.

    A thread cannot be stopped from outside, so whatever loops over something of a caller's length gets the call's
    ticket and checks it at least every tenth of a second of work.

    Attributes:
        give_way: Called at each check, in the thread that works: lets shorter work pass; None for nothing.

    Args:
        seconds_left: Tells how long it is to the call's deadline; None for no deadline.
    """

    __slots__ = ("_is_given_up", "_seconds_left", "give_way")

    def __init__(self, seconds_left: Callable[[], float] | None = None) -> None:
        self._seconds_left = seconds_left
        self._is_given_up = False
        self.give_way: Callable[[], None] | None = None

    @classmethod
    def until(cls, deadline_s: float | None, clock: Callable[[], float]) -> Self:
        """Return the ticket of work that begins.

        Args:
            deadline_s: Time at which it is of no use any more, by the clock; None for no deadline.
            clock: Monotonic seconds.
        """
        return cls(None if deadline_s is None else lambda: deadline_s - clock())

    @property
    def is_given_up(self) -> bool:
        """Whether nobody waits any more."""
        return self._is_given_up

    def give_up(self) -> None:
        """Note, from any thread, that nobody waits any more: the work ends at its next check."""
        self._is_given_up = True

    def seconds_left(self) -> float | None:
        """Return how long it is to the deadline, in seconds; None if there is none."""
        return None if self._seconds_left is None else self._seconds_left()

    def check(self) -> None:
        """Go on working, or end.

        Raises:
            CancelledError: Nobody waits any more.
            DeadlineError: The deadline has passed.
        """
        if self._is_given_up:
            raise CancelledError
        if self._seconds_left is not None and self._seconds_left() <= 0:
            raise DeadlineError("The deadline passed while this request was worked on.")
        if self.give_way is not None:
            self.give_way()
