"""Hashes of files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from nestvec.errors import ArtefactError, SourceError


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


def verify_hashes(folder: Path, expected: Mapping[str, str]) -> None:
    """Compare files with the hashes that a card states.

    Raises:
        SourceError: A file is missing or differs.
    """
    for name, sha256 in expected.items():
        path = folder / name
        if not path.is_file():
            raise SourceError(f"{path}: the file is missing, though the card names it")
        if (actual := file_sha256(path)) != sha256:
            raise SourceError(
                f"{path}: sha256 is {actual}, the card says {sha256}; the file is not used"
            )
