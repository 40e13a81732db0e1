"""JSON files of our own and of models; what callers send is parsed by `json_bodies`, within bounds."""

import json
from pathlib import Path
from typing import Any

from nestvec.errors import FormatError


def load_json(text: str | bytes) -> Any:  # noqa: ANN401 - JSON is of any type
    """Parse JSON, so that whatever is wrong with it is a ValueError.

    Raises:
        ValueError: The text is not JSON, or nested more deeply than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        FormatError: The file is missing, unreadable, or holds no object.
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
