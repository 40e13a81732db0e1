"""What callers are told of models without telling them where on the server's disk these lie."""

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Final

# From a slash at the beginning of a word on; one after a letter is part of a Hub id or a URL.
ABSOLUTE_PATH: Final = re.compile(r"(?<![\w:/.~-])(?:~[\w.-]*)?(?:/[^\s/'\"`,;:()<>\[\]]+)+/?")


def is_path(name: str) -> bool:
    """Return whether a model's name is where it lies on the disk, rather than a name or a Hub id."""
    return name.startswith(("/", "~", "./", "../")) or PurePath(name).is_absolute()


def public_name(name: str) -> str:
    """Return a model's name; of a path the last part only."""
    return PurePath(name).name if is_path(name) else name


def public_names(names: Iterable[str]) -> list[str]:
    """Return names of a model without those that are paths, which answer all the same."""
    return [name for name in names if not is_path(name)]


def without_paths(message: str) -> str:
    """Return a message for the log with each absolute path cut down to its last part, for callers."""
    return ABSOLUTE_PATH.sub(lambda match: PurePath(match[0]).name, message)
