"""Small sets of texts that reports measure with where the caller gives none; written for this project."""

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def read_probes(name: str) -> Any:  # noqa: ANN401 - each file has a form of its own
    """Return the content of a set."""
    return json.loads(files(__package__).joinpath(f"{name}.json").read_text("utf-8"))
