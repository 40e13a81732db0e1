"""Files of labels, labelled texts and pairs: what is read, and what is refused by its line."""

from pathlib import Path

import pytest
from nestvec.errors import FormatError
from nestvec.tools.quality.labelled_texts import (
    check_template,
    read_concepts,
    read_labelled,
    read_text_pairs,
)


def test_labels_have_names_or_examples(tmp_path: Path) -> None:
    """A bare label is read through the template, examples as they are; lines of a label may stand apart."""
    path = tmp_path / "topics.tsv"
    path.write_bytes(
        "\ufeffsports\r\nlaw\ta judge\u2028spoke\r\n\r\nsports\ta match\r\nlaw\ta judge\u2028spoke\nart\t \n".encode()
    )
    concepts = read_concepts(path)
    assert [concept.label for concept in concepts] == ["sports", "law", "art"]
    read = [concept.read_as("a text about {}") for concept in concepts]
    assert read == [
        ["a text about sports", "a match"],
        ["a judge\u2028spoke"],
        ["a text about art"],
    ]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"a\tb\tc\nd\n", ":1: expected a label"),
        (b"a\n \tb\n", ":2: expected a label"),
        (b"a\na\tb\n", "two labels at least, got 1"),
        (b"", "two labels at least, got 0"),
        (b"\xff\xfe", "no UTF-8"),
    ],
)
def test_wrong_files_of_labels_are_refused(tmp_path: Path, content: bytes, match: str) -> None:
    """The line, or the reason, is named."""
    path = tmp_path / "topics.tsv"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=match):
        read_concepts(path)


def test_a_text_has_its_labels_together(tmp_path: Path) -> None:
    """Lines of one text are one text of several labels."""
    path = tmp_path / "labelled.tsv"
    path.write_text("law\tone\nart\ttwo\nart\tone\nart\ttwo\n")
    texts = read_labelled(path, ["art", "law"])
    assert [(each.text, each.labels) for each in texts] == [("one", (0, 1)), ("two", (0,))]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("art\tone\nno\ttwo\n", ":2: .*there are: art, law"),
        ("art\n", ":1: expected a label, a tab"),
    ],
)
def test_unknown_labels_are_refused(tmp_path: Path, content: str, match: str) -> None:
    """The line is named, and the labels that there are."""
    path = tmp_path / "labelled.tsv"
    path.write_text(content)
    with pytest.raises(FormatError, match=match):
        read_labelled(path, ["art", "law"])


def test_pairs(tmp_path: Path) -> None:
    """Two texts a line, no more and no fewer, and one line at least."""
    path = tmp_path / "pairs.tsv"
    path.write_text("he\tshe\n\nman\twoman\n")
    assert read_text_pairs(path) == [("he", "she"), ("man", "woman")]
    for content in ("he\n", "he\tshe\tit\n", "he\t \n", ""):
        path.write_text(content)
        with pytest.raises(FormatError, match=r"expected a text|no pairs"):
            read_text_pairs(path)
    with pytest.raises(FormatError, match="cannot be read"):
        read_text_pairs(tmp_path / "missing.tsv")


@pytest.mark.parametrize("template", ["", "a text", "{} or {}"])
def test_a_template_has_one_place(template: str) -> None:
    """Else nobody knows where the label goes."""
    with pytest.raises(FormatError, match="once"):
        check_template(template)
