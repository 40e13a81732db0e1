"""Joules by the meters of a machine, and an estimate without them."""

from pathlib import Path

import pytest
from nestvec.corpus.reports.statistics.energy import ESTIMATED, METERED, EnergyMeter


def write(root: Path, package: str, counter: int, limit: int = 1000) -> None:
    """Write a package's counter in microjoules."""
    folder = root / package
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{counter}\n")
    (folder / "max_energy_range_uj").write_text(f"{limit}\n")


def test_joules_are_those_of_the_meters(tmp_path: Path) -> None:
    """Packages add up, parts of a package do not count twice, and a counter that began anew is no loss."""
    write(tmp_path, "intel-rapl:0", 100)
    write(tmp_path, "intel-rapl:1", 900)
    write(tmp_path, "intel-rapl:0:0", 5)
    meter = EnergyMeter(tmp_path)
    write(tmp_path, "intel-rapl:0", 350)
    write(tmp_path, "intel-rapl:1", 50)
    write(tmp_path, "intel-rapl:0:0", 90)
    joules, how = meter.joules()
    assert joules == pytest.approx(400e-6)
    assert how == METERED


def test_without_meters_it_is_an_estimate_that_says_so(tmp_path: Path) -> None:
    """Eight watts for each busy core."""
    used_s = iter((10.0, 12.5))
    meter = EnergyMeter(tmp_path, lambda: next(used_s))
    assert meter.joules() == (20.0, ESTIMATED)
    assert "estimate" in ESTIMATED
