"""Lines of batches, of reports and of corpora."""

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

from nestvec.api.requests.report_request import parse_lines
from nestvec.corpus.reading.readers import READERS, read_records
from nestvec.corpus.reading.records import Columns
from nestvec.errors import NestvecError
from nestvec.jobs.lines import check_lines, read_lines, request_of
from nestvec.jobs.types import JobLimits

from tests.end_to_end.fuzz.mutate import as_json, mutated_bytes, mutated_json
from tests.end_to_end.fuzz.parsers.parser_target import ParserTarget

LIMITS = JobLimits(max_line_bytes=4096)


def _lines(folder: Path) -> list[dict[str, Any]]:
    del folder
    return [
        {
            "custom_id": f"id{n}",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"input": ["alpha", "beta"], "dimensions": 8, "text": "x"},
            "text": "alpha",
            "id": n,
        }
        for n in range(4)
    ]


def _write_lines(folder: Path, lines: list[dict[str, Any]], chooser: random.Random) -> None:
    rows = [
        as_json(mutated_json(line, chooser) if chooser.random() < 0.7 else line) for line in lines
    ]
    content = chooser.choice((b"\n", b"\r\n", b"\n\n", b"\x0b")).join(rows)
    if chooser.random() < 0.4:
        content = mutated_bytes(content, chooser)
    if chooser.random() < 0.1:
        content = b"\xef\xbb\xbf" + content
    (folder / "lines.jsonl").write_bytes(content)


def _read_batch(folder: Path) -> object:
    path = folder / "lines.jsonl"
    check = check_lines(path, "/v1/embeddings", LIMITS)
    if check.problems:
        return check
    return [request_of(line) for line in read_lines(path, LIMITS.max_line_bytes)]


def _report_lines(folder: Path) -> list[dict[str, Any]]:
    del folder
    return [
        {"text": "alpha", "label": "x"},
        {"reference": "beta"},
        {"pair": ["alpha", "beta"]},
        {"text": "\ud800 gamma"},
    ]


def _read_report(folder: Path) -> object:
    return parse_lines((folder / "lines.jsonl").read_bytes())


def _read_corpus(folder: Path) -> object:
    columns = Columns(text="text", id=None)
    records: list[object] = []
    for kind in set(READERS) & {".jsonl", ".txt", ".csv", "jsonl", "txt", "csv"}:
        with suppress(NestvecError):
            records += read_records(folder / "lines.jsonl", columns, kind)
    return records


TARGETS = {
    "batch lines": ParserTarget(_lines, _write_lines, _read_batch),
    "report lines": ParserTarget(_report_lines, _write_lines, _read_report),
    "corpus": ParserTarget(_lines, _write_lines, _read_corpus),
}
