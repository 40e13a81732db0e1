"""JSON of files, so that whatever is wrong with it is a ValueError."""

import json
from typing import Any


def load_json(text: str | bytes) -> Any:  # noqa: ANN401 - JSON is of any type
    """Parse it.

    Raises:
        ValueError: It is not JSON, or nested more deeply than can be followed.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
