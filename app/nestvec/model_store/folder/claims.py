"""What a model's files claim of its vectors, field by field, and what becomes of each claim."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from typing_extensions import override

from nestvec.errors import FormatError

SHOWN_CHARS: Final = 60


class Verdict(StrEnum):
    """What becomes of a field.

    Attributes:
        HONOURED: A reader takes it.
        WITHOUT_EFFECT: It changes no vector here or in the libraries.
        REFUSED: It would change vectors, and is not served.
        UNKNOWN: Neither a reader here nor a library that is known reads it.
    """

    HONOURED = "honoured"
    WITHOUT_EFFECT = "without effect"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class FolderClaim:
    """One field of a folder's files.

    Attributes:
        file: The file's path in the folder.
        field: The field's name; "" for what is wrong with a file or the folder as a whole.
        value: Its value, shortened, printable.
        verdict: What becomes of it.
        reason: Why, and the way out where it is refused; "" where a reader takes it.
    """

    file: str
    field: str
    value: str
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A field that a library reads and we do not.

    Attributes:
        reason: What it would change.
        neutral: Values with which it changes nothing; a missing field and null never do.
    """

    reason: str
    neutral: tuple[object, ...] = (None, False)

    def is_neutral(self, value: object) -> bool:
        """Whether a value changes nothing."""
        return any(value == each and type(value) is type(each) for each in (None, *self.neutral))


@dataclass(frozen=True, slots=True)
class FieldTable:
    """The fields of one kind of file.

    Attributes:
        honoured: Those that a reader takes, or refuses by their values.
        without_effect: Those that change no vector, each with the reason.
        refused: Those that would.
        way_out: What to do about a refused one.
    """

    honoured: frozenset[str] = frozenset()
    without_effect: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, Refused] = field(default_factory=dict)
    way_out: str = "a copy of the folder without this field is served as if it said nothing"

    def with_honoured(self, names: Iterable[str]) -> Self:
        """Return a table with more fields that a reader takes; unless their values are refused."""
        known = self.honoured.union(names)
        return type(self)(known, self.without_effect, self.refused, self.way_out)

    def claims(self, file: str, values: Mapping[str, Any]) -> Iterator[FolderClaim]:
        """Iterate over the claims of a file's fields, in its order."""
        for name, value in values.items():
            verdict, reason = self._verdict(name, value)
            yield FolderClaim(file, shown(name, quoted=False), shown(value), verdict, reason)

    def _verdict(self, name: str, value: object) -> tuple[Verdict, str]:
        refused = self.refused.get(name)
        if refused is not None and not refused.is_neutral(value):
            return Verdict.REFUSED, f"{refused.reason}; {self.way_out}"
        if name in self.honoured:
            return Verdict.HONOURED, ""
        if refused is not None:
            return Verdict.WITHOUT_EFFECT, "says nothing"
        if name in self.without_effect:
            return Verdict.WITHOUT_EFFECT, self.without_effect[name]
        return Verdict.UNKNOWN, "no reader and no known library reads it"


def check(folder: Path, claims: Iterable[FolderClaim]) -> tuple[str, ...]:
    """Refuse the first claim that is refused; return the names of the unknown ones, with their files.

    Raises:
        FormatError: There is a refused one; names file, field and the way out.
    """
    unknown = []
    for claim in claims:
        if claim.verdict is Verdict.REFUSED:
            raise FormatError(f"{folder / claim.file}: {claim.field}: {claim.reason}")
        if claim.verdict is Verdict.UNKNOWN:
            unknown.append(f"{claim.file}: {claim.field}")
    return tuple(unknown)


def shown(value: object, *, quoted: bool = True) -> str:
    """Return a value of a file as short printable text."""
    text = json.dumps(value) if quoted else json.dumps(value)[1:-1]
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


class Recording(dict[str, Any]):
    """A config.json that notes which fields a reader asks for, in `read`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    @override
    def __getitem__(self, name: str) -> Any:
        """Return a field's value."""
        self.read.add(name)
        return super().__getitem__(name)

    @override
    def get(self, name: str, default: Any = None) -> Any:
        """Return a field's value, or the default where there is none."""
        self.read.add(name)
        return super().get(name, default)

    @override
    def __contains__(self, name: object) -> bool:
        """Whether there is a field of this name."""
        self.read.add(str(name))
        return super().__contains__(name)
