"""Returns to the kernel what large requests have left behind in malloc's heaps.

Malloc keeps what is freed, for the batches that come next; what large bodies and answers have taken adds up, request by
request and thread by thread, until a container is ended for its memory.
"""

import asyncio
from typing import Final

from nestvec.system.malloc import give_back_freed_memory
from nestvec.system.memory import anonymous_bytes, usable_memory_bytes

INTERVAL_S: Final = 1.0
# Growth that is left alone: as much, or this part of the memory.
MIN_GROWTH_BYTES: Final = 48 * 1024 * 1024
GROWTH_SHARE: Final = 1 / 32


class MemoryReturn:
    """Decides when memory is worth returning, which takes some milliseconds.

    Args:
        growth_bytes: How much the process may have grown since the last time.
    """

    def __init__(self, growth_bytes: float) -> None:
        self._growth_bytes = growth_bytes
        self._settled_bytes = 0

    def is_due(self, size_bytes: int) -> bool:
        """Whether the process has grown by enough.

        Args:
            size_bytes: Its resident memory now, without what is mapped from files: weights, which are read in as
                they are used, are not malloc's to give back.
        """
        if not self._settled_bytes:
            self._settled_bytes = size_bytes
        self._settled_bytes = min(self._settled_bytes, size_bytes)
        return size_bytes - self._settled_bytes > self._growth_bytes

    def returned(self, size_bytes: int) -> None:
        """Note how large the process is after what was free has been returned."""
        self._settled_bytes = size_bytes


async def give_back_memory_forever() -> None:
    """Return freed memory when there is much of it, for as long as the event loop runs; nothing outside of Linux."""
    if not anonymous_bytes():
        return
    deciding = MemoryReturn(max(MIN_GROWTH_BYTES, GROWTH_SHARE * usable_memory_bytes()))
    while True:
        await asyncio.sleep(INTERVAL_S)
        if deciding.is_due(anonymous_bytes()):
            # In a thread: the C library is called without Python's global lock.
            await asyncio.to_thread(give_back_freed_memory)
            deciding.returned(anonymous_bytes())
