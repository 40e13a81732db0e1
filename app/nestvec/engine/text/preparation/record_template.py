"""RecordTemplate: records (a paper's title and abstract, a row of a table) to texts, in one order of fields. Pure.

A field that a record lacks is left out with what stands around it: the words before it, back to the field before, and
the brackets or quotes that close behind it. So `{title} ({year}). {abstract}` gives "A title. An abstract" without a
year, and "An abstract" without a title too: separators never begin a text.

Source: the grammar of fields is that of Python's format strings (PEP 3101), without conversions and formats.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from nestvec.errors import InputError
from nestvec.system.unicode import replace_lone_surrogates

MAX_TEMPLATE_CHARS: Final = 1000
MAX_FIELDS: Final = 32
MAX_NAME_CHARS: Final = 100
# Items of a list in one field: authors, keywords.
MAX_ITEMS: Final = 1000
CLOSING: Final = ")]}>»”’\"'`"
SEPARATORS: Final = " \t\r\n.,;:!?|/·•–—-"
# Where Jina's and other clients' records hold a plain text.
TEXT_FIELD: Final = "text"


@dataclass(frozen=True, slots=True)
class Part:
    """A field of a template, and what comes and goes with it.

    Attributes:
        before: What stands before it, back to what closes behind the field before.
        name: The field's name.
        closing: Brackets and quotes that close behind it.
    """

    before: str
    name: str
    closing: str


@dataclass(frozen=True, slots=True)
class RecordTemplate:
    """How a record is written as one text.

    Attributes:
        source: The template, such as "{title}. {abstract}"; `{{` and `}}` stand for braces.

    Raises:
        ValueError: It is no template; says why.
    """

    source: str
    _parts: tuple[Part, ...] = field(init=False, compare=False, repr=False)
    _tail: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Read the template."""
        parts, tail = _parse(self.source)
        object.__setattr__(self, "_parts", parts)
        object.__setattr__(self, "_tail", tail)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, in their order."""
        return tuple(part.name for part in self._parts)

    def text(self, record: Mapping[str, Any]) -> str:
        """Write a record as a text, in valid Unicode.

        Args:
            record: Values by field: texts, numbers, booleans, lists of them, or null; a list's items are joined by
                ", ", and a field that is null, blank or an empty list is missing. Fields that the template does not
                name are left out.

        Raises:
            InputError: A field holds something else, or the record has none of the fields; names the field.
        """
        written: list[str] = []
        for part in self._parts:
            value = _written(record.get(part.name), part.name)
            if not value.strip():
                continue
            before = part.before if written or part is self._parts[0] else _begun(part.before)
            written += (before, value, part.closing)
        if not written:
            plain = record.get(TEXT_FIELD)
            if isinstance(plain, str):
                return replace_lone_surrogates(plain)
            raise InputError(
                f"this record has none of the template's fields: {', '.join(self.fields)}",
                param="input",
            )
        return replace_lone_surrogates("".join((*written, self._tail)))


def _parse(source: str) -> tuple[tuple[Part, ...], str]:
    """Cut a template into its fields and what stands behind the last.

    Raises:
        ValueError: It is no template.
    """
    if len(source) > MAX_TEMPLATE_CHARS:
        raise ValueError(f"a template has at most {MAX_TEMPLATE_CHARS} characters")
    try:
        pieces = list(string.Formatter().parse(source))
    except ValueError as error:
        raise ValueError(f"not a template such as '{{title}}. {{abstract}}' ({error})") from None
    parts: list[Part] = []
    literal = ""
    for text, name, form, conversion in pieces:
        literal += text
        if name is None:
            continue
        if form or conversion:
            raise ValueError(f"the field '{name}' takes neither a format nor a conversion")
        if not name.strip() or len(name) > MAX_NAME_CHARS:
            raise ValueError(f"a field needs a name of 1 to {MAX_NAME_CHARS} characters")
        if any(part.name == name for part in parts):
            raise ValueError(f"the field '{name}' stands twice")
        _add(parts, name, literal)
        literal = ""
    if not parts:
        raise ValueError("a template needs at least one field, such as {title}")
    if len(parts) > MAX_FIELDS:
        raise ValueError(f"a template has at most {MAX_FIELDS} fields")
    *others, last = parts
    closing, tail = _closing(literal)
    return (*others, Part(last.before, last.name, closing)), tail


def _add(parts: list[Part], name: str, literal: str) -> None:
    """Add a field behind a literal, whose first brackets close behind the field before."""
    closing, before = _closing(literal) if parts else ("", literal)
    if parts:
        last = parts[-1]
        parts[-1] = Part(last.before, last.name, closing)
    parts.append(Part(before, name, ""))


def _closing(literal: str) -> tuple[str, str]:
    """What closes at a literal's start, and the rest."""
    rest = literal.lstrip(CLOSING)
    return literal[: len(literal) - len(rest)], rest


def _begun(before: str) -> str:
    """What stands before a field that has become the first."""
    return before.lstrip(SEPARATORS)


def _written(value: object, name: str) -> str:
    """A value as text; "" for a missing one.

    Raises:
        InputError: It is an object, a list of lists, or a list too long.
    """
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if len(value) > MAX_ITEMS:
            raise InputError(
                f"the field '{name}' holds {len(value)} items, max {MAX_ITEMS}", param="input"
            )
        return ", ".join(word for item in value if (word := _scalar(item, name)))
    return _scalar(value, name)


def _scalar(value: object, name: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | Sequence | set):
        raise InputError(
            f"the field '{name}' must hold a text, a number, a boolean or a list of them",
            param="input",
            code="invalid_type",
        )
    return str(value)
