"""Bounds on connections, and how many of them open files allow."""

import resource
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

# Open files that connections leave to the model, the store, and whatever else opens files.
SPARE_FILES: Final = 128
# Places beyond `max_connections` that are kept for health checks.
HEALTH_CHECK_PLACES: Final = 16


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds on connections.

    Attributes:
        max_connections: How many may be open at once; some more may only ask whether the server is alive.
        max_header_bytes: Size of a request line and its headers, of trailers, and of a chunked body's framing.
        header_timeout_s: Time for the headers of a request, and for the first byte on a new connection.
        body_timeout_s: Time for a body, before what its size adds to it.
        min_bytes_per_s: Rate below which bodies and readers are hung up on.
        stall_s: Time over which that rate is measured.
    """

    max_connections: int = 2048
    max_header_bytes: int = 64 * 1024
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    min_bytes_per_s: int = 1024
    stall_s: float = 10.0


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
    return max(16, min(requested, soft - SPARE_FILES - HEALTH_CHECK_PLACES))
