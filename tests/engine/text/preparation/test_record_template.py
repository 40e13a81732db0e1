"""Records as texts: one order of fields, and nothing left standing around a missing one."""

import string
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.text.preparation.record_template import (
    MAX_ITEMS,
    RecordTemplate,
)
from nestvec.errors import InputError

PAPER = {"title": "A title", "year": 2020, "abstract": "An abstract"}


@pytest.mark.parametrize(
    ("template", "missing", "text"),
    [
        ("{title}. {abstract}", (), "A title. An abstract"),
        ("{title}. {abstract}", ("abstract",), "A title"),
        ("{title}. {abstract}", ("title",), "An abstract"),
        ("{title} ({year}). {abstract}", (), "A title (2020). An abstract"),
        ("{title} ({year}). {abstract}", ("year",), "A title. An abstract"),
        ("{title} ({year}). {abstract}", ("title", "year"), "An abstract"),
        ('"{title}" of {year}', ("year",), '"A title"'),
        ('"{title}" of {year}', ("title",), "of 2020"),
        ("Title: {title}\nAbstract: {abstract}.", ("title",), "Abstract: An abstract."),
        ("Title: {title}\nAbstract: {abstract}.", ("abstract",), "Title: A title."),
        ("{{{title}}}", (), "{A title}"),
    ],
)
def test_missing_fields(template: str, missing: tuple[str, ...], text: str) -> None:
    """A missing field goes with the words before it and what closes behind it; separators begin no text."""
    record = {name: value for name, value in PAPER.items() if name not in missing}
    assert RecordTemplate(template).text(record) == text
    blank = {**PAPER, **dict.fromkeys(missing, " ")}
    assert RecordTemplate(template).text(blank) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (3, "3"),
        (2.5, "2.5"),
        (True, "true"),
        (["a", None, 3, False], "a, 3, false"),
        ("lone \ud800", "lone \ufffd"),
    ],
)
def test_values(value: Any, text: str) -> None:
    """Numbers, booleans and lists of them are written as JSON writes them; the text is valid Unicode."""
    assert RecordTemplate("{x}").text({"x": value}) == text


@pytest.mark.parametrize("value", [{"a": 1}, [["a"]], ["x"] * (MAX_ITEMS + 1)])
def test_refused_values(value: Any) -> None:
    """An object, a list of lists and a list too long are refused by the field's name."""
    with pytest.raises(InputError, match="'x'"):
        RecordTemplate("{x}").text({"x": value})


def test_no_field_at_all() -> None:
    """A record without any of the fields is its `text`, or is refused by the names of the fields."""
    template = RecordTemplate("{title}. {abstract}")
    assert template.text({"text": "plain"}) == "plain"
    with pytest.raises(InputError, match="title, abstract"):
        template.text({"name": "x"})


@pytest.mark.parametrize(
    "source",
    [
        *("", "no field", "{", "{}", "{ }", "{a!r}", "{a:>9}", "{a}{a}", "x" * 1001),
        "".join(f"{{{c}}}" for c in string.ascii_letters),
    ],
)
def test_no_template(source: str) -> None:
    """What is no template, names a field twice or has too many is refused."""
    with pytest.raises(ValueError, match=r"template|field|name"):
        RecordTemplate(source)


records = st.dictionaries(
    st.sampled_from(["title", "year", "abstract"]),
    st.text(min_size=1).filter(lambda text: text.strip() != ""),
    min_size=1,
)


@settings(max_examples=40)
@given(records)
def test_every_value_is_in_the_text(record: Mapping[str, str]) -> None:
    """Values come once, in the template's order, whatever they hold; the order of the record's keys is no matter."""
    template = RecordTemplate("{title} ({year}); {abstract}")
    text = template.text(record)
    assert text == template.text(dict(list(record.items())[::-1]))
    place = 0
    for name in ("title", "year", "abstract"):
        if name in record:
            place = text.index(record[name].replace("\ud800", "\ufffd"), place) + len(record[name])
    if "title" not in record and "year" not in record:
        assert text == record["abstract"]
