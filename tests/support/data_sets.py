"""Public data sets that some tests measure with; none is bundled, and tests that want one skip where it is absent."""

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
# Read when tests are collected: fixtures clear the environment of what could steer a server.
FOLDER: Final = Path(os.environ.get("DATA") or ROOT / "data")


def data_set(name: str) -> Path:
    """Return the path of a data set, which may be absent.

    Args:
        name: Relative to the folder in `$DATA`, or to `data/` of the checkout: `stsb/test.tsv`, `scifact`, `corpus`;
            CONTRIBUTING.md says what each holds and where it is published.
    """
    return FOLDER / name
