"""Locks that one process has at a time, and that end with it."""

import fcntl
from typing import IO, Any


def try_lock(file: IO[Any] | int) -> bool:
    """Lock an open file, or folder, until it is closed; returns at once (flock(2)).

    Args:
        file: The file, or its descriptor.

    Returns:
        Whether it is locked now; another process has it locked where it is not.

    Raises:
        OSError: It cannot be locked where it lies.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
