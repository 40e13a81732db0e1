"""Counters of energy, in a folder as Linux's power capping framework shows them."""

from pathlib import Path

import pytest
from nestvec.observability.energy_metrics import EnergyMetrics, energy_zones
from prometheus_client import CollectorRegistry


def make_zone(root: Path, folder: str, name: str, energy_uj: int = 5) -> Path:
    """Make a zone whose counter begins again at 1,000 J; return its counter."""
    zone = root / folder
    zone.mkdir()
    (zone / "name").write_text(f"{name}\n")
    (zone / "max_energy_range_uj").write_text("1000000000\n")
    (zone / "energy_uj").write_text(f"{energy_uj}\n")
    return zone / "energy_uj"


@pytest.fixture
def counters(tmp_path: Path) -> dict[str, Path]:
    """Two processors, a part of the second, the first once more by another way in, and what is no zone."""
    (tmp_path / "intel-rapl").mkdir()
    make_zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    return {
        "package-0": make_zone(tmp_path, "intel-rapl:0", "package-0", 999_000_000),
        "package-1": make_zone(tmp_path, "intel-rapl:1", "package-1"),
        "package-1/dram": make_zone(tmp_path, "intel-rapl:1:0", "dram"),
    }


def test_joules_are_counted_from_the_start_on(tmp_path: Path, counters: dict[str, Path]) -> None:
    """A counter that begins again goes on, one that falls silent stands; parts are named after their whole."""
    registry = CollectorRegistry()
    metrics = EnergyMetrics(registry)
    metrics.watch(energy_zones(tmp_path))

    def joules() -> dict[str, float]:
        metrics.sample()
        (family,) = registry.collect()
        return {s.labels["zone"]: s.value for s in family.samples if s.name.endswith("_total")}

    assert joules() == dict.fromkeys(counters, 0.0)
    counters["package-0"].write_text("1000000\n")  # 1 J to its end, and 1 J more
    counters["package-1"].write_text("2500005\n")
    counters["package-1/dram"].write_text("no number\n")
    assert joules() == pytest.approx({"package-0": 2.0, "package-1": 2.5, "package-1/dram": 0.0})
    counters["package-1"].unlink()
    assert joules()["package-1"] == pytest.approx(2.5)


def test_what_cannot_be_read_has_no_series(tmp_path: Path, counters: dict[str, Path]) -> None:
    """Where only root may read, and on machines without counters, there is nothing rather than a zero."""
    for path in counters.values():
        path.unlink()
        path.mkdir()  # whoever asks, it cannot be read
    assert energy_zones(tmp_path) == []
    assert energy_zones(tmp_path / "absent") == []
    registry = CollectorRegistry()
    EnergyMetrics(registry).watch([])
    (family,) = registry.collect()
    assert family.samples == []
