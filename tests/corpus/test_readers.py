"""Readers of corpora: every format gives its records, and an error names file and line."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nestvec.corpus.reading.readers import read_records
from nestvec.corpus.reading.records import Columns, Record
from nestvec.errors import FormatError


def texts(path: Path, columns: Columns | None = None) -> list[tuple[str, str]]:
    """Return all records of a file as (id, text)."""
    return [(r.id, r.text) for r in read_records(path, columns or Columns(), path.suffix)]


def test_txt_is_a_text_a_line(tmp_path: Path) -> None:
    """Each line of a TXT file is a text: empty lines count, either line end does, other separators do not."""
    path = tmp_path / "in.txt"
    path.write_bytes("\ufeffone\r\n\ntwo\u2028still two\nlast".encode())
    assert texts(path) == [("0", "one"), ("1", ""), ("2", "two\u2028still two"), ("3", "last")]


def test_jsonl_is_an_object_or_a_string_a_line(tmp_path: Path) -> None:
    """Each line of JSONL is an object or a string; ids are kept, and lone surrogates are replaced."""
    path = tmp_path / "in.jsonl"
    lines = [
        {"id": "x", "text": "one"},
        "two",
        {"id": 7, "text": "three"},
        {"id": "\udc00", "text": "\ud800"},
    ]
    path.write_text("\n\n".join(json.dumps(line) for line in lines))
    assert texts(path) == [("x", "one"), ("1", "two"), ("7", "three"), ("\ufffd", "\ufffd")]


def test_csv_has_a_header(tmp_path: Path) -> None:
    """CSV fields may hold quotes, commas and line breaks; columns are chosen by name."""
    path = tmp_path / "in.csv"
    path.write_text('key,body\na,"one, ""quoted""\nand more"\nb,two\n')
    assert texts(path, Columns("body", "key")) == [("a", 'one, "quoted"\nand more'), ("b", "two")]


def test_parquet(tmp_path: Path) -> None:
    """A Parquet file of more rows than one read batch is read whole."""
    path = tmp_path / "in.parquet"
    rows = 3000
    pq.write_table(
        pa.table({"id": list(range(rows)), "text": [f"t{n}" for n in range(rows)]}), path
    )
    assert texts(path) == [(str(n), f"t{n}") for n in range(rows)]


@pytest.mark.parametrize("ending", ["arrow", "feather"])
def test_arrow(tmp_path: Path, ending: str) -> None:
    """An Arrow file of more than one record batch is read whole; other columns are not read."""
    path = tmp_path / f"in.{ending}"
    table = pa.table({"id": list(range(30)), "text": [f"t{n}" for n in range(30)], "x": [0] * 30})
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table, max_chunksize=7)
    assert texts(path) == [(str(n), f"t{n}") for n in range(30)]


def test_a_template_writes_columns_as_texts(tmp_path: Path) -> None:
    """Several columns become the text, in JSONL, CSV and Parquet; a bare string, and a row of `text` alone, stay."""
    columns = Columns(template="{title} ({year}). {abstract}")
    rows = [{"title": "A", "year": 1, "abstract": "b", "id": "x"}, {"abstract": "c", "id": "y"}]
    lines = tmp_path / "in.jsonl"
    lines.write_text("\n".join(json.dumps(row) for row in [*rows, "plain", {"text": "own"}]))
    assert texts(lines, columns) == [
        ("x", "A (1). b"),
        ("y", "c"),
        ("2", "plain"),
        ("3", "own"),
    ]
    table = tmp_path / "in.csv"
    table.write_text("title,year,abstract\nA,1,b\n,,c\n")
    assert texts(table, columns) == [("0", "A (1). b"), ("1", "c")]
    file = tmp_path / "in.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    assert texts(file, columns) == [("x", "A (1). b"), ("y", "c")]
    table.write_text("name\nA\n")
    with pytest.raises(FormatError, match=r"in\.csv:2: .* title, year, abstract"):
        texts(table, columns)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("in.txt", b"ok\n\xff", "not valid UTF-8"),
        ("in.jsonl", b'{"text": "a"}\n{', r"in\.jsonl:2: not JSON"),
        ("in.jsonl", b"[1]", r"in\.jsonl:1: expected an object"),
        (
            "in.jsonl",
            b'{"body": "a"}',
            r"in\.jsonl:1: no column 'text'; choose one with --text-column",
        ),
        ("in.jsonl", b'{"text": 3}', r"in\.jsonl:1: column 'text' holds no text"),
        ("in.csv", b"a,b\n1,2\n", r"in\.csv:2: no column 'text'"),
        ("in.parquet", b"PAR1 not", "not a Parquet file"),
        ("in.arrow", b"ARROW1 not", "not an Arrow IPC file"),
    ],
)
def test_what_cannot_be_read_names_the_line(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    """An error names the file, the line and the reason."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=reason):
        texts(tmp_path / name)


def test_an_id_column_must_be_there(tmp_path: Path) -> None:
    """An id column that was asked for must exist."""
    (tmp_path / "in.jsonl").write_text('{"text": "a"}')
    with pytest.raises(FormatError, match="no column 'key'"):
        texts(tmp_path / "in.jsonl", Columns(id="key"))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """A missing file is a FormatError, not a traceback."""
    with pytest.raises(FormatError, match="cannot be read"):
        texts(tmp_path / "none.txt")


def test_records_know_their_place() -> None:
    """Records are plain values that compare equal, with the place that they were read from."""
    assert Record("1", "t", "in.txt:2") == Record("1", "t", "in.txt:2")
