"""The file in memory that outlives a killed engine process: a status page, then the journal of what its workers run.

The engine process maps it and writes; the supervisor and the HTTP processes map it and read. A killed process leaves it
as it was. An HTTP process has one too, of which it uses the status page for its heartbeat.
"""

import mmap
import os
from pathlib import Path
from typing import Final

import numpy as np

DIGEST_BYTES: Final = 16
MAX_SLOTS: Final = 256
MAX_NOTED_ITEMS: Final = 1024  # of one batch; the others of a larger one are not suspects
STATUS: Final = np.dtype(
    [("beat_s", "f8"), ("is_ready", "u1"), ("overdue_s", "f8"), ("waiting_tokens", "f8"),
     ("token_s", "f8"), ("max_tokens", "f8")]
)  # fmt: skip
SLOT: Final = np.dtype([("count", "i4"), ("digests", f"V{DIGEST_BYTES}", (MAX_NOTED_ITEMS,))])
FILE_BYTES: Final = STATUS.itemsize + MAX_SLOTS * SLOT.itemsize


def map_file(path: Path) -> mmap.mmap:
    """Map the file; it is made where it is missing, readable by its owner only, and filled with zeros."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.ftruncate(descriptor, FILE_BYTES)
        return mmap.mmap(descriptor, FILE_BYTES)
    finally:
        os.close(descriptor)
