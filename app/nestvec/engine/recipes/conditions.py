"""Conditions of routes: `field operator literal`, joined by `and`. A closed grammar: nothing else is read or run. Pure.

    condition  = comparison { "and" comparison }
    comparison = number-field ("=" | "!=" | "<" | "<=" | ">" | ">=") integer
               | word-field ("=" | "!=") word
               | field "in" "(" literal { "," literal } ")"

Number fields are `tokens` and `characters`, word fields `script`, `language` and `input_type`; words stand in quotes.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt, ne
from typing import Final, Protocol

from nestvec.engine.text.preparation.letters import FAMILIES, SCRIPTS

NUMBER_FIELDS: Final = ("tokens", "characters")
WORD_FIELDS: Final = ("script", "language", "input_type")
# The role that a call says its texts have, in the engine's words; "none" where it says nothing.
INPUT_TYPES: Final[Mapping[str, str]] = {
    "none": "none",
    "query": "query",
    "passage": "passage",
    "document": "passage",
    "classification": "classify",
    "clustering": "cluster",
    "similarity": "similarity",
}
ORDERS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "=": eq,
    "!=": ne,
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
}
MAX_CHARS: Final = 500
# A language is told by its code of ISO 639, as in BCP 47; "und" where there is no telling.
LANGUAGE: Final = re.compile("[a-z]{2,3}")
TOKEN: Final = re.compile(
    r"""\s*(?:(?P<operator><=|>=|!=|=|<|>)|(?P<mark>[(),])|(?P<number>\d{1,9}(?!\w))|(?P<word>[a-z_]+)|"""
    r"""'(?P<single>[^'"]*)'|"(?P<double>[^'"]*)")"""
)


class Facts(Protocol):
    """What is known of a text that is routed."""

    def number(self, field: str) -> int:
        """Return the value of a number field."""

    def words(self, field: str) -> Sequence[str]:
        """Return the values of a word field: a script's own name and its family's count both."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison of a condition.

    Attributes:
        field: What is compared.
        operator: How: a sign, or "in".
        numbers: With what, of a number field.
        words: With what, of a word field.
    """

    field: str
    operator: str
    numbers: tuple[int, ...] = ()
    words: tuple[str, ...] = ()

    def holds(self, facts: Facts) -> bool:
        """Return whether the comparison holds for a text."""
        if self.field in NUMBER_FIELDS:
            value = facts.number(self.field)
            if self.operator == "in":
                return value in self.numbers
            return ORDERS[self.operator](value, self.numbers[0])
        is_one = any(word in self.words for word in facts.words(self.field))
        return is_one is not (self.operator == "!=")


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition: all of its comparisons must hold.

    Attributes:
        text: As it was written.
        comparisons: In the order in which they are looked at; what they need not know is not worked out.
    """

    text: str
    comparisons: tuple[Comparison, ...]

    def holds(self, facts: Facts) -> bool:
        """Return whether the condition holds for a text."""
        return all(comparison.holds(facts) for comparison in self.comparisons)

    @property
    def fields(self) -> frozenset[str]:
        """What has to be known of a text."""
        return frozenset(comparison.field for comparison in self.comparisons)


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        ValueError: It is no condition; says where, and what there could be.
    """
    if len(text) > MAX_CHARS:
        raise ValueError(
            f"a condition has at most {MAX_CHARS} characters, and this has {len(text)}"
        )
    reader = _Reader(text)
    comparisons = [reader.comparison()]
    while not reader.is_at_end:
        reader.expect("word", "and")
        comparisons.append(reader.comparison())
    # Cheap fields first: a language costs more than a script, and that more than a length.
    fields = ("input_type", "characters", "script", "tokens", "language")
    comparisons.sort(key=lambda comparison: fields.index(comparison.field))
    return Condition(text.strip(), tuple(comparisons))


class _Reader:
    """Reads a condition from left to right."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str, int]] = []
        text = text.rstrip()
        place = 0
        while place < len(text):
            match = TOKEN.match(text, place)
            if match is None:
                raise ValueError(f"cannot be read from character {place + 1} on: {FORM}")
            kind = match.lastgroup or ""
            self._tokens.append((kind, match[kind], match.start(kind)))
            place = match.end()
        self._next = 0

    @property
    def is_at_end(self) -> bool:
        """Whether everything was read."""
        return self._next == len(self._tokens)

    def expect(self, kind: str, value: str = "", *, wanted: str = "") -> str:
        """Read a token of a kind.

        Raises:
            ValueError: Something else stands there, or nothing.
        """
        if self.is_at_end:
            raise ValueError(f"ends too early, {wanted or repr(value)} is missing: {FORM}")
        found_kind, found, place = self._tokens[self._next]
        if found_kind != kind or (value and found != value):
            raise ValueError(f"needs {wanted or repr(value)} at character {place + 1}: {FORM}")
        self._next += 1
        return found

    def comparison(self) -> Comparison:
        """Read one comparison.

        Raises:
            ValueError: It is none.
        """
        known = (*NUMBER_FIELDS, *WORD_FIELDS)
        field = self.expect("word", wanted=f"one of {', '.join(known)}")
        if field not in known:
            raise ValueError(f"there is no field '{field}'; there are {', '.join(known)}")
        is_number = field in NUMBER_FIELDS
        if not self.is_at_end and self._tokens[self._next][:2] == ("word", "in"):
            self._next += 1
            return _compared(field, "in", self._list(is_number=is_number))
        operator = self.expect("operator", wanted=f"an operator ({', '.join(ORDERS)} or in)")
        if not is_number and operator not in ("=", "!="):
            raise ValueError(f"'{field}' is compared by =, != or in, not by {operator}")
        return _compared(field, operator, [self._literal(is_number=is_number)])

    def _list(self, *, is_number: bool) -> list[str]:
        self.expect("mark", "(")
        literals = [self._literal(is_number=is_number)]
        while self._tokens[self._next : self._next + 1] and self._tokens[self._next][1] == ",":
            self._next += 1
            literals.append(self._literal(is_number=is_number))
        self.expect("mark", ")")
        return literals

    def _literal(self, *, is_number: bool) -> str:
        if is_number:
            return self.expect("number", wanted="a whole number")
        if not self.is_at_end and self._tokens[self._next][0] == "double":
            return self.expect("double")
        return self.expect("single", wanted="a word in quotes")


FORM: Final = "a condition is FIELD OPERATOR LITERAL, several joined by 'and', as in: tokens > 512 and script = 'cjk'"


def _compared(field: str, operator: str, literals: Sequence[str]) -> Comparison:
    """Return a comparison with literals that its field can have.

    Raises:
        ValueError: A field has no such value.
    """
    if field in NUMBER_FIELDS:
        return Comparison(field, operator, numbers=tuple(map(int, literals)))
    words = tuple(_word(field, literal.lower()) for literal in literals)
    return Comparison(field, operator, words=words)


def _word(field: str, word: str) -> str:
    """Return a literal of a word field as facts have it.

    Raises:
        ValueError: The field has no such value.
    """
    if field == "script":
        known = sorted({*SCRIPTS, *FAMILIES})
        if word not in known:
            raise ValueError(f"there is no script '{word}'; there are {', '.join(known)}")
        return word
    if field == "input_type":
        if word not in INPUT_TYPES:
            raise ValueError(f"there is no input_type '{word}'; there are {', '.join(INPUT_TYPES)}")
        return INPUT_TYPES[word]
    if not LANGUAGE.fullmatch(word):
        raise ValueError(f"'{word}' is no language: codes of ISO 639 are, such as 'de', or 'und'")
    return word
