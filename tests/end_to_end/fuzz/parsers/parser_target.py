"""What a target is, and what several begin with."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.tiny import write_tiny_bert


@dataclass(frozen=True)
class ParserTarget:
    """A parser to test.

    Attributes:
        prepare: Writes what does not change, once.
        write: Writes a mutated file.
        read: Reads it; raises `NestvecError` where it refuses the file.
    """

    prepare: Callable[[Path], Any]
    write: Callable[[Path, Any, random.Random], None]
    read: Callable[[Path], object]


def nothing(_: Path) -> None:
    """Prepare nothing."""


def pristine_bert(folder: Path) -> Path:
    """Write a tiny model whose files are mutated."""
    return write_tiny_bert(folder / "pristine")
