"""The whole way from a machine to a plan: a real server is measured, and the coefficients make a plan."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from nestvec.cli import group
from nestvec.tools.planning.coefficients import MachineCoefficients
from nestvec.tools.planning.measuring import open_loads, request_costs

from tests.support.tiny import write_tiny_bert


@pytest.mark.load
@pytest.mark.process
def test_what_bench_measures_makes_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every coefficient is measured on a server of its own, whatever settings this process has for others."""
    monkeypatch.setenv("NESTVEC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NESTVEC_API_KEYS", "none-of-its-business")
    monkeypatch.setattr(request_costs, "SHAPE_S", 0.5)
    monkeypatch.setattr(request_costs, "WARM_UP_S", 0.2)
    monkeypatch.setattr(request_costs, "SATURATION_S", 1.0)
    monkeypatch.setattr(open_loads, "OPEN_S", 0.5)
    monkeypatch.setattr(open_loads, "BUSY_S", 0.5)
    model, path = write_tiny_bert(tmp_path / "model"), tmp_path / "machine.json"
    done = CliRunner().invoke(
        group, ["bench", "--coefficients", str(path), "--model", str(model)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    assert "a batch" in done.output
    found = MachineCoefficients.read(path)
    assert found.dimensions == 32
    assert found.batch.seconds.of(24, 0) > 0
    assert found.front.of(1, 24) > 0
    assert found.server_bytes > 50_000_000
    flags = ["--qps", "20", "--tokens", "5-24", "--p99", "2000", "--format", "json"]
    done = CliRunner().invoke(
        group, ["plan", "--coefficients", str(path), *flags], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["plan"]["servers"] >= 2
