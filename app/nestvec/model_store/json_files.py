"""JSON files of a model's folder."""

from pathlib import Path
from typing import Any

from nestvec.errors import FormatError
from nestvec.system.json_text import load_json


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FormatError: Missing, unreadable, or not an object.
    """
    try:
        data = load_json(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FormatError(f"{path}: the file is missing") from None
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(data, dict):
        raise FormatError(f"{path}: expected a JSON object")
    return data
