"""The tree of errors in the docstring of `nestvec.errors` is the tree of its classes."""

import re

from nestvec import errors
from nestvec.errors import NestvecError

# A line of the drawing: its branches, four characters a level, then a class and what it means.
LINE = re.compile(r"    (?P<branches>(?:[│├└ ][─ ]{2} )*)(?P<name>[A-Z]\w*Error)\b(?: +\S.*)?")


def drawn() -> list[tuple[str, str | None]]:
    """Return each class of the drawing with the class that it hangs from, in order."""
    path: list[str] = []
    pairs: list[tuple[str, str | None]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = LINE.fullmatch(line)
        if match is None:
            continue
        depth = len(match["branches"]) // 4
        path[depth:] = [match["name"]]
        pairs.append((match["name"], path[depth - 1] if depth else None))
    return pairs


def defined(kind: type[NestvecError], base: str | None = None) -> list[tuple[str, str | None]]:
    """Return a class and those derived from it in `nestvec.errors`, each with its base, in order of definition."""
    pairs: list[tuple[str, str | None]] = [(kind.__name__, base)]
    for subclass in kind.__subclasses__():
        if subclass.__module__ == errors.__name__:
            pairs += defined(subclass, kind.__name__)
    return pairs


def test_the_drawing_is_the_tree_of_classes() -> None:
    """Every class is drawn, under its base, in the order in which the file defines them."""
    assert drawn() == defined(NestvecError)


def test_every_class_is_an_attribute_of_the_module() -> None:
    """The processes send errors to each other by name, and look the names up in the module."""
    for name, _ in drawn():
        assert issubclass(getattr(errors, name), NestvecError)
