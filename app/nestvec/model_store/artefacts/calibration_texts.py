"""Texts that models are calibrated on: the bundled ones, or a file of the operator's."""

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Final

from nestvec.errors import FormatError

BUNDLED: Final = "calibration.txt"
MIN_TEXTS: Final = 16
MAX_TEXTS: Final = 2000  # ranges hardly move beyond, and a corpus given by mistake would take hours


def calibration_texts(path: Path | None) -> list[str]:
    """Read texts, one a line, without empty lines; the bundled ones where no file is given.

    Raises:
        FormatError: The file cannot be read, or has too few lines to say anything.
    """
    try:
        text = (
            path.read_text("utf-8") if path else (files(__package__) / BUNDLED).read_text("utf-8")
        )
    except (OSError, ValueError) as error:
        raise FormatError(f"calibration_file {path}: cannot be read ({error})") from error
    lines = [line for line in text.splitlines() if line.strip()][:MAX_TEXTS]
    if len(lines) < MIN_TEXTS:
        raise FormatError(
            f"calibration_file {path}: {len(lines)} texts, one a line; at least {MIN_TEXTS} are needed"
        )
    return lines


def calibration_sha256(path: Path | None) -> str:
    """Return the SHA-256 of the texts, for fingerprints."""
    return hashlib.sha256("\n".join(calibration_texts(path)).encode()).hexdigest()
