"""Conditions of routes: what they say of a text, and what is no condition."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.recipes.conditions import MAX_CHARS, ORDERS, parse_condition


@dataclass
class KnownFacts:
    """Facts of a text that are given, and which of them were asked for."""

    numbers: dict[str, int] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def number(self, field: str) -> int:
        """Return a number."""
        self.asked.append(field)
        return self.numbers[field]

    def words(self, field: str) -> tuple[str, ...]:
        """Return words."""
        self.asked.append(field)
        return self.names[field]


FACTS = KnownFacts(
    {"tokens": 512, "characters": 30},
    {"script": ("hiragana", "cjk"), "language": ("ja",), "input_type": ("query",)},
)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("tokens > 511", True),
        ("tokens>512", False),
        ("tokens >= 512", True),
        ("tokens != 512", False),
        ("tokens in (1, 512,3)", True),
        ("characters <= 29", False),
        ("script = 'cjk'", True),
        ("script = 'hiragana'", True),
        ("script = 'han'", False),
        ("script != 'cjk'", False),
        ("script != 'han'", True),
        ('script in ("thai", "cjk")', True),
        ("language = 'JA'", True),
        ("language in ('de','fr')", False),
        ("input_type = 'query' and language = 'ja' and tokens < 600", True),
        ("input_type = 'document' and language = 'ja'", False),
        ("  tokens = 512\n and characters = 30 ", True),
    ],
)
def test_a_condition_holds(text: str, holds: bool) -> None:  # noqa: FBT001 - a parameter
    """Each field is compared by each operator that it has; `and` joins."""
    assert parse_condition(text).holds(FACTS) is holds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "ends too early"),
        ("tokens", "ends too early"),
        ("tokens >", "a whole number"),
        ("tokens > 'a'", "a whole number"),
        ("tokens > 5 or tokens < 2", "needs 'and'"),
        ("tokens > 5 and", "ends too early"),
        ("tokens > 5; import os", "cannot be read from character 11"),
        ("tokens > 5x", "cannot be read"),
        ("tokens > -5", "cannot be read from character 9"),
        ("tokens == 5", "a whole number"),
        ("length > 5", "there is no field 'length'; there are tokens, characters, script"),
        ("script > 'cjk'", "by =, != or in, not by >"),
        ("script = cjk", "a word in quotes"),
        ("script = 'klingon'", "there is no script 'klingon'; there are arabic"),
        ("language = 'german'", "codes of ISO 639"),
        ("input_type = 'poem'", "there is no input_type 'poem'"),
        ("script in 'cjk'", "needs '('"),
        ("script in ('cjk'", "ends too early"),
        ("__class__ = 'x'", "no field"),
        ("tokens > " + "9" * 10, "cannot be read"),
        ("tokens > 1 and " * 60 + "tokens > 1", f"at most {MAX_CHARS} characters"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, problem: str) -> None:
    """The refusal says where it goes wrong, and what there could be."""
    with pytest.raises(ValueError, match=problem.replace("(", r"\(")):
        parse_condition(text)


def test_what_need_not_be_known_is_not_worked_out() -> None:
    """The language, which costs most, is asked for last, however the condition is written."""
    facts = KnownFacts({"characters": 3}, {"script": ("latin",)})
    assert not parse_condition("language = 'de' and script = 'thai' and characters = 3").holds(
        facts
    )
    assert facts.asked == ["characters", "script"]


@settings(max_examples=25)
@given(st.text("tokenscripadl =<>!'\"(),59é\n", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but ValueError comes of text that is no condition."""
    try:
        condition = parse_condition(text)
    except ValueError:
        return
    assert condition.comparisons


@settings(max_examples=25)
@given(
    st.sampled_from(["tokens", "characters"]),
    st.sampled_from(sorted(ORDERS)),
    st.integers(0, 10**9 - 1),
    st.integers(0, 10**9),
)
def test_numbers_compare_as_in_python(field: str, operator: str, literal: int, value: int) -> None:
    """A comparison of numbers is that of whole numbers."""
    condition = parse_condition(f"{field} {operator} {literal}")
    sign = "==" if operator == "=" else operator
    expected = eval(f"{value} {sign} {literal}")  # noqa: S307 - of numbers made here
    assert condition.holds(KnownFacts({field: value})) is expected
