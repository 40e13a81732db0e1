"""Lines of a batch's input file: how they are read and checked."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.jobs.lines import MAX_PROBLEMS, check_lines, read_lines, request_of
from nestvec.jobs.types import JobLimits
from nestvec.system.json_bodies import JsonLimits

URL = "/v1/embeddings"


def line(custom_id: Any = "a", **other: Any) -> bytes:
    """A good line, or one with something else in it."""
    body = {"model": "m", "input": "hi"}
    row = {"custom_id": custom_id, "method": "POST", "url": URL, "body": body, **other}
    return json.dumps(row).encode()


def codes(tmp_path: Path, content: bytes, limits: JobLimits | None = None) -> list[Any]:
    """Codes of the problems of a file, with the numbers of their lines."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(content)
    check = check_lines(path, URL, limits or JobLimits())
    return [(problem.code, problem.line) for problem in check.problems]


@pytest.mark.parametrize(
    "content",
    [
        line(),
        line() + b"\n",
        b"\xef\xbb\xbf" + line("a") + b"\r\n\r\n" + line("b") + b"\r\n\n",
        line(body={"input": [[1, 2], [3]]}),
        line("\ud800"),
    ],
)
def test_what_may_run(tmp_path: Path, content: bytes) -> None:
    """A BOM, CRLF, blank lines and a missing last newline are tolerated."""
    assert codes(tmp_path, content) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", [("empty_file", None)]),
        (b"\n \r\n", [("empty_file", None)]),
        (line("a") + b"\n{\n" + line("b"), [("invalid_json_line", 2)]),
        (b"[1]\n" + line(), [("invalid_json_line", 1)]),
        (b"\xff\xfe\n" + line(), [("invalid_json_line", 1)]),
        (line("a") + b"\n" + line("a"), [("duplicate_custom_id", 2)]),
        (line(""), [("missing_required_parameter", 1)]),
        (line("x" * 65), [("missing_required_parameter", 1)]),
        (line(7), [("missing_required_parameter", 1)]),
        (line(method="GET"), [("missing_required_parameter", 1)]),
        (line(url="/v1/chat/completions"), [("url_mismatch", 1)]),
        (line(body="x"), [("missing_required_parameter", 1)]),
        (
            line("a") + b"\n\n" + line("b", body={"model": "n", "input": "x"}),
            [("model_mismatch", 3)],
        ),
    ],
)
def test_what_may_not_run(tmp_path: Path, content: bytes, expected: list[Any]) -> None:
    """Each problem has the code of OpenAI's API, and the number of the line as an editor counts it."""
    assert codes(tmp_path, content) == expected


def test_bounds(tmp_path: Path) -> None:
    """The sizes of a line and of the file, the requests, and the inputs over all of them are bounded."""
    many = b"\n".join(line(str(n)) for n in range(3))
    assert codes(tmp_path, many, JobLimits(max_lines=2)) == [("too_many_tasks", 3)]
    assert codes(tmp_path, many, JobLimits(max_batch_bytes=100)) == [("too_many_tasks", None)]
    lists = line("a", body={"input": ["x", "y"]}) + b"\n" + line("b", body={"input": ["z"]})
    assert codes(tmp_path, lists, JobLimits(max_inputs=2)) == [("too_many_tasks", 2)]
    long = line("a", body={"input": "x" * 500}) + b"\n" + line("b", body={"input": "y"})
    assert codes(tmp_path, long, JobLimits(max_line_bytes=300)) == [("invalid_json_line", 1)]


def test_a_hundred_problems_are_enough(tmp_path: Path) -> None:
    """A file with a hundred problems is not read any further."""
    assert len(codes(tmp_path, b"{\n" * 5000)) == MAX_PROBLEMS


@given(
    ends=st.lists(st.sampled_from([b"\n", b"\r\n", b"\n\n"]), min_size=1, max_size=20),
    limit=st.integers(150, 4000),
    sizes=st.lists(st.integers(0, 3000), min_size=20, max_size=20),
)
def test_lines_are_read_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, ends: list[bytes], limit: int, sizes: list[int]
) -> None:
    """A line beyond the bound is skipped as one line, and the next one is read right."""
    path = tmp_path_factory.mktemp("lines") / "in.jsonl"
    rows = [
        line(str(n), body={"input": "x" * size})
        for n, size in zip(range(len(ends)), sizes, strict=False)
    ]
    path.write_bytes(b"".join(row + end for row, end in zip(rows, ends, strict=True)))
    lines = list(read_lines(path, limit))
    assert len(lines) == len(rows)
    for row, found_line in zip(rows, lines, strict=True):
        # The line's end counts as part of it, one byte or two.
        if len(row) + 2 <= limit:
            assert found_line.content is not None
            assert request_of(found_line)[0] == json.loads(row)["custom_id"]
        elif len(row) > limit:
            assert found_line.content is None


@pytest.mark.parametrize(
    "junk",
    [
        b"[" + b"{}," * 150_000 + b"1]",
        b"[" + b"1," * 450_000 + b"1]",
        b"[" * 40 + b"]" * 40,
        b"[" * 900 + b"]" * 900,
    ],
    ids=["objects", "values", "deep", "very deep"],
)
def test_lines_are_bounded_as_bodies_are(tmp_path: Path, junk: bytes) -> None:
    """A line of more values or depth than a body may have is a problem of that line, found before it is parsed."""
    bad = line("b").replace(b'"hi"', b'"hi", "junk": ' + junk)
    assert codes(tmp_path, line("a") + b"\n" + bad) == [("invalid_json_line", 2)]


def test_depth_of_lines_is_the_settings(tmp_path: Path) -> None:
    """Lines may be as deep as the limits say."""
    deep = line("b").replace(b'"hi"', b'"hi", "junk": ' + b"[" * 40 + b"]" * 40)
    limits = JobLimits(json=JsonLimits(max_depth=50))
    assert codes(tmp_path, deep, limits) == []
