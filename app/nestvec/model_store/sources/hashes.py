"""Hashes of files."""

import hashlib
from pathlib import Path

from nestvec.errors import ArtefactError


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file's content, in hexadecimal.

    Raises:
        ArtefactError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read ({error.strerror})") from error
