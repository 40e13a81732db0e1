"""Files and folders that only the server's user may read; existing ones are tightened, never loosened."""

import os
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def tighten(path: Path) -> None:
    """Take the rights of group and others away from a file or folder; nothing where it is absent or another user's.

    A volume that another user owns is for that user to close: Kubernetes mounts some so.
    """
    with suppress(OSError):
        status = path.stat()
        mode = stat.S_IMODE(status.st_mode)
        if mode & OTHERS and status.st_uid == os.geteuid():
            path.chmod(mode & ~OTHERS)


def make_private_folder(path: Path) -> None:
    """Make a folder where it is absent, and tighten it where it is there.

    Raises:
        OSError: It cannot be made.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    tighten(path)


def open_private(path: Path) -> IO[bytes]:
    """Open a file for appending, which only its owner may read; it is made where it is absent.

    Raises:
        OSError: It cannot be opened.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    tighten(path)
    return os.fdopen(descriptor, "ab")


def kept_secret(folders: Iterable[Path], name: str, size_bytes: int) -> bytes:
    """Return a random secret that lies in the first of some folders that can keep it.

    Processes that ask at once get the same one.

    Args:
        folders: Where it may lie, the best place first; a folder is made where it is absent.
        name: The name of its file.
        size_bytes: Its size.

    Returns:
        The secret; one that is kept nowhere where none of the folders can be written.
    """
    for folder in folders:
        with suppress(OSError):
            make_private_folder(folder)
            return _secret_in(folder / name, size_bytes)
    return secrets.token_bytes(size_bytes)


def _secret_in(path: Path, size_bytes: int) -> bytes:
    """Read the secret of a file, which is made, whole, where it is absent or of another size.

    Raises:
        OSError: It can be neither read nor written.
    """
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    with suppress(FileNotFoundError):
        secret = path.read_bytes()
        if len(secret) == size_bytes:
            tighten(path)
            return secret
        path.unlink(missing_ok=True)
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(size_bytes))
            file.flush()
            os.fsync(file.fileno())
        # Fails where another process was faster: its secret counts then.
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path.read_bytes()
