"""Documents and packed files: what is read of them, and what is said of those that cannot be read."""

import gzip
from pathlib import Path

import pytest
from nestvec.corpus.reading.readers import read_records
from nestvec.corpus.reading.records import Columns, TextUnit
from nestvec.corpus.reading.sources import find_sources, read_sources
from nestvec.errors import FormatError

from tests.corpus.document_samples import PAGE, WORD, docx, pdf


def texts(path: Path, per: TextUnit | None = None) -> list[tuple[str, str]]:
    """Return the ids and texts of a file's records."""
    records = read_sources(find_sources([str(path)]), Columns(per=per))
    return [(record.id, record.text) for record in records]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("page.html", PAGE, "# Größe\n\nOne **two**.\n\n## More\n\n* a"),
        ("page.HTM", PAGE, "# Größe\n\nOne **two**.\n\n## More\n\n* a"),
        ("page.html.gz", gzip.compress(PAGE, mtime=0), "# Größe\n\nOne **two**.\n\n## More\n\n* a"),
        ("text.docx", docx(WORD), "# Title\n\nFirst words."),
        ("text.pdf", pdf("Page one", "Page two"), "Page one\n\nPage two"),
    ],
)
def test_documents_are_read_with_their_headings(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    """HTML and Word become Markdown without what is no text; PDF gives its pages."""
    pytest.importorskip("bs4")
    (tmp_path / name).write_bytes(content)
    assert texts(tmp_path / name) == [(name, expected)]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("text.pdf", b"no", "not a PDF"),
        ("text.pdf", pdf("x")[:200], "not a PDF"),
        ("text.docx", b"PK\x03\x04 no", "not a Word document"),
        ("text.docx", docx("<w:document"), "not a Word document"),
        ("page.html", b"<div>" * 5000 + b"x", "nested too deep"),
        ("lines.txt.gz", b"no", "not a whole gzip file"),
        ("lines.txt.gz", gzip.compress(b"abc" * 9999)[:-9], "not a whole gzip file"),
        ("page.html.gz", gzip.compress(PAGE, mtime=0)[:-9], "not a whole gzip file"),
        ("page.md", b"\xff\xfe\x00", "not valid UTF-8"),
    ],
)
def test_what_is_broken_names_its_file(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    """A document that cannot be read is an error that names it."""
    pytest.importorskip("bs4")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=rf"{name}: .*{reason}"):
        texts(tmp_path / name)


def test_a_missing_reader_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package that reads a document, it is refused as soon as it is found."""
    (tmp_path / "text.pdf").write_bytes(b"")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FormatError, match=r"need pypdfium2: `make setup EXTRAS=documents`"):
        find_sources([str(tmp_path)])


def test_packed_lines_and_tables(tmp_path: Path) -> None:
    """Text formats are read the same when gzip has packed them."""
    for name, content in (
        ("a.txt", "one\ntwo"),
        ("a.jsonl", '{"text": "one"}\n"two"'),
        ("a.csv", "text\none\ntwo\n"),
    ):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
        assert texts(tmp_path / f"{name}.gz") == [("0", "one"), ("1", "two")]


def test_a_text_is_a_line_a_paragraph_or_a_file(tmp_path: Path) -> None:
    """A .txt is a text a line unless told otherwise, a document the whole of itself."""
    content = "one\ntwo\n\n \nthree\r\n"
    (tmp_path / "a.txt").write_text(content)
    (tmp_path / "a.md").write_text(content)
    assert [text for _, text in texts(tmp_path / "a.txt")] == ["one", "two", "", " ", "three"]
    for ending in ("txt", "md"):
        path = tmp_path / f"a.{ending}"
        paragraphs = [("0", "one\ntwo"), ("1", "three")]
        assert texts(path, TextUnit.PARAGRAPH) == paragraphs
        assert [text.strip() for _, text in texts(path, TextUnit.FILE)] == [content.strip()]
    lines = [("0", "one"), ("1", "two"), ("2", "three")]
    assert texts(tmp_path / "a.md", TextUnit.LINE) == lines
    assert texts(tmp_path / "a.md")[0][0] == "a.md"
    (tmp_path / "blank.md").write_text(" \n")
    assert list(read_records(tmp_path / "blank.md", Columns(), ".md")) == []
