"""The lock of a data folder: one server a folder."""

from pathlib import Path
from typing import IO, Final

from nestvec.errors import StoreError
from nestvec.system.file_locks import try_lock
from nestvec.system.private_files import make_private_folder, open_private

LOCK: Final = "lock"  # held for as long as a server uses the folder


def lock_folder(folder: Path) -> IO[bytes]:
    """Lock a data folder, which is made where it is absent, until the file that is returned is closed.

    Raises:
        StoreError: Another process owns the folder, or it cannot be written.
    """
    try:
        make_private_folder(folder)
        lock = open_private(folder / LOCK)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror})") from error
    if not try_lock(lock):
        lock.close()
        raise StoreError(f"{folder}: another process uses this data folder")
    return lock
