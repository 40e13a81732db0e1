"""The pages on reports and on capabilities say what there is."""

import ast
import re
from pathlib import Path
from typing import Final

import pytest
from nestvec.api.reports import report_jobs
from nestvec.api.reports.report_files import KEPT_S, MAX_KEPT
from nestvec.api.requests import report_request
from nestvec.corpus.reports.frame import Need
from nestvec.corpus.reports.table import REPORTS

ROOT: Final = Path(__file__).parents[2]
REPORTS_PAGE: Final = (ROOT / "docs/vectors/reports.md").read_text("utf-8")
CAPABILITIES: Final = (ROOT / "docs/vectors/capabilities.md").read_text("utf-8")
# What another part of the project has not brought yet is named so.
STATES: Final = {"served", "reported", "partly", "not applicable"}


def rows(page: str) -> list[list[str]]:
    """Return the cells of each row of a page's tables, heads aside."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_report_has_its_row() -> None:
    """The page has a row for each report of the table, in its order, and says what each is made of."""
    found = [row for row in rows(REPORTS_PAGE) if row[0] in REPORTS]
    assert [row[0] for row in found] == list(REPORTS)
    for name, made_of, *_ in found:
        report = REPORTS[name]
        for need in (*report.needs, *report.needs_one_of):
            assert need.value in made_of, name
        if not report.needs and not report.needs_one_of:
            assert made_of == "–" or "or none" in made_of, name


def test_bounds_of_the_page_are_those_of_the_code() -> None:
    """What a server's reports may be like stands in the page as it is in the code."""
    for words in (
        f"at most {report_request.MAX_ITEMS:,} of each",
        f"{report_request.MAX_FILE_BYTES // 2**20} MiB",
        f"({report_jobs.DEFAULT_TIMEOUT_S}, at most {report_jobs.MAX_TIMEOUT_S:,})",
        f"{MAX_KEPT} reports at most",
    ):
        assert words in REPORTS_PAGE, words
    assert KEPT_S == 7 * 24 * 3600
    assert (report_jobs.MAX_OF_A_KEY, report_jobs.MAX_WAITING) == (2, 8)
    assert set(map(str, Need)) <= set(re.findall(r"`(\w+)`", REPORTS_PAGE))


def capability_rows() -> list[list[str]]:
    """Return the rows of the page on capabilities."""
    return [row for row in rows(CAPABILITIES) if row[0].isdigit()]


def test_all_fifty_four_are_told() -> None:
    """Each has a number, a state, a place or a reason, and a test where something is served or reported."""
    found = capability_rows()
    assert [int(row[0]) for row in found] == list(range(1, 55))
    for number, name, _, state, where, proof in found:
        assert state in STATES, number
        assert len(where) > 10, name
        if state in ("served", "reported"):
            assert "::test_" in proof, name


@pytest.mark.parametrize("row", capability_rows(), ids=lambda row: row[0])
def test_the_tests_that_are_named_exist(row: list[str]) -> None:
    """Each named test is in the file that is named."""
    for file, name in re.findall(r"`([\w/]+\.py)::(\w+)`", row[5]):
        tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
        names = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in names, f"{file}::{name}"
