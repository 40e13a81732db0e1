"""Which files paths, globs and standard input name."""

import os
from pathlib import Path

import pytest
from nestvec.corpus.reading.records import Columns
from nestvec.corpus.reading.sources import STDIN, TextSource, find_sources, left_out, read_sources
from nestvec.errors import FormatError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files, one of them in a subfolder, and a folder that looks like a file."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "folder.txt").mkdir()
    for name, text in (("b.txt", "b0\nb1"), ("a.txt", "a0"), ("deep/c.txt", "c0")):
        (tmp_path / name).write_text(text)
    return tmp_path


def names(folder: Path, *patterns: str) -> list[str]:
    """Return the paths of the sources that patterns name, relative to the folder."""
    sources = find_sources([str(folder / pattern) for pattern in patterns])
    return [str(source.path.relative_to(folder)) for source in sources]


def test_globs_are_sorted_and_files_come_once(folder: Path) -> None:
    """Files come in the order of the arguments, sorted within a glob and each once; folders are no files."""
    assert names(folder, "*.txt") == ["a.txt", "b.txt"]
    assert names(folder, "b.txt", "**/*.txt") == ["b.txt", "a.txt", "deep/c.txt"]


def test_a_name_with_glob_characters_is_a_name(folder: Path) -> None:
    """A path that exists is taken literally, whatever characters it holds."""
    (folder / "x[1].txt").write_text("x")
    assert names(folder, "x[1].txt") == ["x[1].txt"]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("none*.txt", "no such file"),
        ("folder.txt", r"holds no file of a known ending: .txt"),
        ("doc.doc", "unknown ending; known: .txt"),
    ],
)
def test_what_is_not_there_is_an_error(folder: Path, pattern: str, reason: str) -> None:
    """A pattern that names nothing readable is an error before any work."""
    (folder / "doc.doc").write_text("")
    with pytest.raises(FormatError, match=reason):
        find_sources([str(folder / pattern)])


def test_standard_input_is_what_it_is_said_to_be() -> None:
    """Standard input has the format that the caller names, and can be read only once."""
    (source,) = find_sources(["-"], "jsonl")
    assert source == TextSource(STDIN, ".jsonl")
    assert source.is_stdin


def test_records_of_several_files_are_told_apart(folder: Path) -> None:
    """Records of several files are numbered behind the file's name; a single file's have plain numbers."""
    records = list(read_sources(find_sources([str(folder / "*.txt")]), Columns()))
    assert [(record.id, record.text) for record in records] == [
        ("a.txt:0", "a0"),
        ("b.txt:0", "b0"),
        ("b.txt:1", "b1"),
    ]
    assert records[-1].where == f"{folder / 'b.txt'}:2"
    alone = read_sources(find_sources([str(folder / "b.txt")]), Columns())
    assert [record.id for record in alone] == ["0", "1"]


def test_a_changed_file_is_another_one(folder: Path) -> None:
    """A file whose time of change differs has another identity."""
    (source,) = find_sources([str(folder / "a.txt")])
    before = source.identity()
    os.utime(source.path, ns=(1, 1))
    assert source.identity() != before


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Files of one name in several folders give distinct ids, by their paths below the common root."""
    for folder in ("x", "y"):
        (tmp_path / "a" / folder).mkdir(parents=True)
        (tmp_path / "a" / folder / "r.txt").write_text("one\ntwo")
    expected = ["x/r.txt:0", "x/r.txt:1", "y/r.txt:0", "y/r.txt:1"]
    both = [str(tmp_path / "a" / folder / "r.txt") for folder in ("x", "y")]
    for patterns in ([str(tmp_path / "a/**/*.txt")], both):
        records = read_sources(find_sources(patterns), Columns())
        assert [record.id for record in records] == expected
    (of_one,) = find_sources([str(tmp_path / "a/x*/*.txt")])
    assert of_one.name == "x/r.txt"  # the same, whatever else a glob finds


def test_a_folder_is_its_readable_files(folder: Path) -> None:
    """A folder's files come sorted and named by it, hidden and unknown ones left out, and are counted."""
    for name in (".hidden.txt", "deep/.git.txt", "picture.png", "x.md", "lines.jsonl.gz"):
        (folder / name).write_bytes(b"")
    sources = find_sources([str(folder)])
    root = folder.name
    assert [(source.name, source.kind) for source in sources] == [
        (f"{root}/a.txt", ".txt"),
        (f"{root}/b.txt", ".txt"),
        (f"{root}/deep/c.txt", ".txt"),
        (f"{root}/lines.jsonl.gz", ".jsonl"),
        (f"{root}/x.md", ".md"),
    ]
    assert left_out([str(folder)]) == {".png": 1}
    assert find_sources([str(folder), str(folder / "a.txt")]) == sources  # each file once


def test_names_do_not_depend_on_what_else_is_read(folder: Path) -> None:
    """A folder's records are called the same, alone and beside a sibling."""
    other = folder.parent / "other"
    other.mkdir()
    (other / "a.txt").write_text("x")
    alone = {source.name for source in find_sources([str(folder)])}
    assert alone <= {source.name for source in find_sources([str(folder), str(other)])}
