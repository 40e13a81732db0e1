"""Reading corpora."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nestvec.corpus.readers import Columns, Record, read_records
from nestvec.errors import FormatError


def texts(path: Path, columns: Columns | None = None) -> list[tuple[str, str]]:
    """All records as (id, text)."""
    return [(r.id, r.text) for r in read_records(path, columns or Columns(), path.suffix)]


def test_txt_is_a_text_a_line(tmp_path: Path) -> None:
    """Empty lines count, either line end does, and other separators do not."""
    path = tmp_path / "in.txt"
    path.write_bytes("\ufeffone\r\n\ntwo\u2028still two\nlast".encode())
    assert texts(path) == [("0", "one"), ("1", ""), ("2", "two\u2028still two"), ("3", "last")]


def test_jsonl_is_an_object_or_a_string_a_line(tmp_path: Path) -> None:
    """With ids where it has them; lone surrogates are mended."""
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
    """Quotes, commas and line breaks inside fields; other columns by name."""
    path = tmp_path / "in.csv"
    path.write_text('key,body\na,"one, ""quoted""\nand more"\nb,two\n')
    assert texts(path, Columns("body", "key")) == [("a", 'one, "quoted"\nand more'), ("b", "two")]


def test_parquet(tmp_path: Path) -> None:
    """More rows than a read batch."""
    path = tmp_path / "in.parquet"
    rows = 3000
    pq.write_table(
        pa.table({"id": list(range(rows)), "text": [f"t{n}" for n in range(rows)]}), path
    )
    assert texts(path) == [(str(n), f"t{n}") for n in range(rows)]


@pytest.mark.parametrize("ending", ["arrow", "feather"])
def test_arrow(tmp_path: Path, ending: str) -> None:
    """Of more than one record batch; other columns are not read."""
    path = tmp_path / f"in.{ending}"
    table = pa.table({"id": list(range(30)), "text": [f"t{n}" for n in range(30)], "x": [0] * 30})
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table, max_chunksize=7)
    assert texts(path) == [(str(n), f"t{n}") for n in range(30)]


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
    """The file, the line, the reason."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=reason):
        texts(tmp_path / name)


def test_an_id_column_must_be_there(tmp_path: Path) -> None:
    """If asked for."""
    (tmp_path / "in.jsonl").write_text('{"text": "a"}')
    with pytest.raises(FormatError, match="no column 'key'"):
        texts(tmp_path / "in.jsonl", Columns(id="key"))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """Not a trace."""
    with pytest.raises(FormatError, match="cannot be read"):
        texts(tmp_path / "none.txt")


def test_records_know_their_place() -> None:
    """They are plain values."""
    assert Record("1", "t", "in.txt:2") == Record("1", "t", "in.txt:2")
