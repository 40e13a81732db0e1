"""Asks sentence-transformers what folders give; imported by a venv that has the library, and none of our packages."""

import importlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar


class LibraryCase(Protocol):
    """A folder.

    Attributes:
        refused: Parts of the error's message: the file, and the field; empty where the folder is served.
    """

    @property
    def refused(self) -> tuple[str, ...]:
        """Parts of the error's message."""


Case = TypeVar("Case", bound=LibraryCase)


def write_expected(
    file: Path,
    cases: Mapping[str, Case],
    write_folder: Callable[[Path, Case], Path],
    ask: Callable[[Any, str, Case, str], Any],
) -> None:
    """Ask the library what each served case gives, and write the file; needs torch and sentence-transformers.

    Args:
        file: Holds the expectations.
        cases: The cases by name.
        write_folder: Writes a case's folder.
        ask: Returns what the library makes of a folder, given the library, the case's name and the case.
    """
    import torch
    import transformers

    library = importlib.import_module("sentence_transformers")
    expected: dict[str, Any] = {}
    for name, case in cases.items():
        if not case.refused:
            with tempfile.TemporaryDirectory() as scratch:
                folder = str(write_folder(Path(scratch), case))
                expected[name] = ask(library, name, case, folder)
    versions = {module.__name__: module.__version__ for module in (library, transformers, torch)}
    file.write_text(json.dumps({"versions": versions, "expected": expected}) + "\n")
    print(f"{len(expected)} of {len(cases)} cases")
