"""Joules by the meters of a machine, and an estimate without them."""

from pathlib import Path

import pytest
from nestvec.corpus.reports.statistics.energy import (
    ESTIMATED,
    GPUS_UNKNOWN,
    METERED,
    EnergyMeter,
    gpu_reader,
)
from nestvec.errors import ProviderError
from nestvec.system.nvml import GpuState


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


class Cards:
    """NVML of two cards, whose counters the tests turn; in joules, None for a card that counts none."""

    def __init__(self, **counters_j: float | None) -> None:
        self.counters_j = counters_j

    def state(self, uuid: str) -> GpuState:
        """Return a card's state.

        Raises:
            ProviderError: The card is gone.
        """
        if uuid not in self.counters_j:
            raise ProviderError("gone")
        return GpuState(None, 1, 2, energy_j=self.counters_j[uuid])


def test_joules_of_gpus_are_added_to_those_of_packages(tmp_path: Path) -> None:
    """What cards took counts, a counter that began anew does not count backwards, and what is an estimate says so."""
    cards = Cards(a=100.0, b=900.0)
    reader = gpu_reader(lambda: ["a", "b"], lambda: cards)
    write(tmp_path / "metered", "intel-rapl:0", 0, 10**9)
    meters = [
        EnergyMeter(tmp_path / "metered", read_gpus=reader),
        EnergyMeter(tmp_path / "none", iter((10.0, 12.5)).__next__, reader),
    ]
    write(tmp_path / "metered", "intel-rapl:0", 5 * 10**6, 10**9)
    cards.counters_j.update(a=130.0, b=7.0)
    (joules, how), (partly, said) = (meter.joules() for meter in meters)
    assert joules == pytest.approx(35)
    assert how == f"NVML, all 2 GPUs that this process may use; CPUs: {METERED}"
    assert partly == pytest.approx(50)
    assert said.endswith(ESTIMATED)


@pytest.mark.parametrize("trouble", ["no driver", "no library", "a card counts none", "lost"])
def test_gpus_that_tell_no_energy_are_said_to_be_missing(tmp_path: Path, trouble: str) -> None:
    """A sum without a card that worked is never given as the whole."""

    def fail() -> list[str]:
        raise ProviderError(trouble)

    cards = Cards(a=1.0, b=None if trouble == "a card counts none" else 1.0)
    reader = gpu_reader(
        fail if trouble == "no driver" else lambda: ["a", "b"],
        fail if trouble == "no library" else lambda: cards,
    )
    meter = EnergyMeter(tmp_path, iter((10.0, 12.5)).__next__, reader)
    cards.counters_j["a"] = 500.0
    if trouble == "lost":
        del cards.counters_j["b"]
    assert meter.joules() == (20.0, f"{ESTIMATED}; {GPUS_UNKNOWN}")
