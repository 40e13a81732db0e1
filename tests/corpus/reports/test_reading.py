"""Files of pairs: lines with a tab, no more of them than are asked for."""

from pathlib import Path

import pytest
from nestvec.corpus.reports.reading import ReportFiles
from nestvec.errors import FormatError


def test_a_line_ends_where_files_end_lines(tmp_path: Path) -> None:
    """Separators of Unicode within a text end no line; empty lines count for the numbers of those behind."""
    path = tmp_path / "pairs.tsv"
    path.write_text("a query\u2028in two parts\tan answer\r\n\nsecond\tits answer\n")
    assert ReportFiles(pairs=[str(path)]).read().pairs == [
        ("a query\u2028in two parts", "an answer"),
        ("second", "its answer"),
    ]
    path.write_text("one\ttwo\n\nthree\n")
    with pytest.raises(FormatError, match=r"pairs.tsv:3: expected text, tab, text"):
        ReportFiles(pairs=[str(path)]).read()


def test_no_more_pairs_are_read_than_are_asked_for(tmp_path: Path) -> None:
    """What lies behind them is not looked at, in this file or the next."""
    first, second = tmp_path / "one.tsv", tmp_path / "two.tsv"
    first.write_text("a\tb\nc\td\nno pair\n")
    files = [str(first), str(second)]
    assert ReportFiles(pairs=files, max_items=2).read().pairs == [("a", "b"), ("c", "d")]
