"""How fast a caller reads an answer, told from what its system has acknowledged."""

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from typing import Final

# Most that a reader may have been sent and not yet read, for all that we can see. Systems acknowledge what they have
# room for, and then nothing until the reader has made room for a good part of their buffer: 64 KiB for a slow reader
# over loopback, a sixteenth of up to 6 MiB for one that was quick before (Linux).
MAX_UNREAD_BYTES: Final = 256 * 1024
# Linux's `struct tcp_info` has `tcpi_bytes_acked` here, since 4.1.
BYTES_ACKED_OFFSET: Final = 120
BYTES_ACKED: Final = struct.Struct("=Q")


class ReadingRate:
    """Tells a reader that keeps to a rate from one that has stalled.

    What is acknowledged adds to a credit, which falls by the rate: a reader that keeps to the rate has always read
    what its credit has lost, so its system goes on acknowledging. One whose credit is used up for as long as `stall_s`
    does not keep to it.

    Args:
        taken_bytes: Gives how many bytes of the connection the reader's system has taken, from any start.
        min_bytes_per_s: The rate.
        stall_s: How long a reader may lag behind it.
        now_s: Monotonic time.
    """

    def __init__(
        self,
        taken_bytes: Callable[[], int],
        *,
        min_bytes_per_s: float,
        stall_s: float,
        now_s: float,
    ) -> None:
        self._taken_bytes = taken_bytes
        self._min_bytes_per_s = min_bytes_per_s
        self._least_credit_bytes = -min_bytes_per_s * stall_s
        self._taken = taken_bytes()
        # What was taken before may all be unread.
        self._credit_bytes: float = min(MAX_UNREAD_BYTES, max(0, self._taken))
        self._looked_s = now_s

    def resume(self, now_s: float) -> None:
        """Go on after a time in which nothing waited for the reader, and which does not count against it."""
        self._looked_s = now_s

    def is_stalled(self, now_s: float) -> bool:
        """Whether the reader has fallen behind the rate for too long; to be asked every second or so."""
        taken = self._taken_bytes()
        self._credit_bytes -= self._min_bytes_per_s * (now_s - self._looked_s)
        self._credit_bytes = min(MAX_UNREAD_BYTES, self._credit_bytes + taken - self._taken)
        self._taken, self._looked_s = taken, now_s
        return self._credit_bytes < self._least_credit_bytes


def taken_bytes_of(transport: asyncio.Transport) -> int:
    """How many bytes of a connection its reader's system has taken.

    Linux counts what was acknowledged. Elsewhere it is what our own system has taken from us while we wait for the
    reader, counted from below zero: coarser by the size of its buffer.
    """
    if sys.platform == "linux":
        connection = transport.get_extra_info("socket")
        size = BYTES_ACKED_OFFSET + BYTES_ACKED.size
        try:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
            if len(info) == size:
                return int(BYTES_ACKED.unpack_from(info, BYTES_ACKED_OFFSET)[0])
        except (OSError, AttributeError):
            pass  # not TCP, or closed meanwhile
    return -transport.get_write_buffer_size()
