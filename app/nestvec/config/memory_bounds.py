"""Settings that follow the memory of the machine or container where an operator leaves them at 0."""

from typing import Final

from nestvec.config.settings import Settings
from nestvec.system.memory import MemoryBounds, bounds_for, usable_memory_bytes

# Settings by the name of the bound that each of them sets.
SETTING_OF: Final = {
    "in_flight_bytes": "max_in_flight_bytes",
    "queue_tokens": "max_queue_tokens",
    "connections": "max_connections",
}


def memory_bounds(settings: Settings, memory_bytes: int | None = None) -> MemoryBounds:
    """Return what each HTTP process takes in at most: as set, else as memory allows.

    Args:
        settings: Settings of the server.
        memory_bytes: How much memory there is; None: as this process finds it.
    """
    allowed = bounds_for(
        usable_memory_bytes() if memory_bytes is None else memory_bytes,
        body_bytes=settings.max_body_bytes,
        request_tokens=settings.max_tokens_per_request,
        processes=settings.http_processes,
    )
    return MemoryBounds(
        **{
            bound: getattr(settings, setting) or getattr(allowed, bound)
            for bound, setting in SETTING_OF.items()
        }
    )
