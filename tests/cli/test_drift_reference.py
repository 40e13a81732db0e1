"""`nestvec serve --drift-reference`: what cannot be compared with is refused before any process is started."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from nestvec.cli import group
from nestvec.errors import FormatError
from nestvec.processes import single_process, supervisor

from tests.support.tiny import write_tiny_bert


@pytest.mark.parametrize("processes", [0, 2])
def test_a_missing_reference_ends_the_start_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """Regression: HTTP processes ended for it one by one, and were started again for ever."""
    write_tiny_bert(tmp_path / "model")
    started: list[object] = []
    monkeypatch.setattr(supervisor, "run_supervised", started.append)
    monkeypatch.setattr(single_process, "run_single", started.append)
    flags = ["--model", tmp_path / "model", "--cache-dir", tmp_path / "cache"]
    flags += ["--drift-reference", tmp_path / "none.txt", "--http-processes", processes]
    result = CliRunner().invoke(group, ["serve", *map(str, flags)])
    assert isinstance(result.exception, FormatError)
    assert "drift_reference: " in str(result.exception)
    assert not started
