"""Metrics of the energy that processors take, as Linux's power capping framework counts it (Intel's and AMD's RAPL).

Source: https://docs.kernel.org/power/powercap/powercap.html. The counters are of the whole machine, whoever uses it;
since 2020 only root may read them, and virtual machines mostly have none.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter

POWERCAP: Final = Path("/sys/class/powercap")
# `intel-rapl:0` is a processor, `intel-rapl:0:1` a part of it; `intel-rapl-mmio:0` is the same processor once more.
ZONES: Final = "intel-rapl:*"
MICROJOULES: Final = 1e6


@dataclass(slots=True)
class EnergyZone:
    """A counter of energy.

    Attributes:
        name: What it counts: "package-0", or "package-0/dram" for a part.
        folder: Where the system shows it.
        range_uj: Where it begins again at 0, in microjoules.
    """

    name: str
    folder: Path
    range_uj: int
    _last_uj: int = -1

    def taken_j(self) -> float:
        """Return the joules taken since this was called last; 0 at first, and where it cannot be read any more."""
        try:
            now_uj = int((self.folder / "energy_uj").read_text("ascii"))
        except (OSError, ValueError):
            return 0.0
        last_uj, self._last_uj = self._last_uj, now_uj
        if last_uj < 0:
            return 0.0
        grown_uj = now_uj - last_uj
        return (grown_uj if grown_uj >= 0 else grown_uj + self.range_uj) / MICROJOULES


def energy_zones(root: Path = POWERCAP) -> list[EnergyZone]:
    """Return the counters that can be read here; none where there are none, or we may not.

    Args:
        root: The framework's folder.
    """
    zones = []
    for folder in sorted(root.glob(ZONES)):
        with suppress(OSError, ValueError):
            int((folder / "energy_uj").read_text("ascii"))
            range_uj = int((folder / "max_energy_range_uj").read_text("ascii"))
            name = (folder / "name").read_text("utf-8").strip()
            whole, _, part = folder.name.removeprefix("intel-rapl:").partition(":")
            if part:
                of = (root / f"intel-rapl:{whole}" / "name").read_text("utf-8").strip()
                name = f"{of}/{name}"
            zones.append(EnergyZone(name, folder, range_uj))
    return zones


class EnergyMetrics:
    """Counts joules, at each sample.

    Args:
        registry: Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._joules = Counter(
            "nestvec_energy_joules_total",
            "Energy that the machine's processors have taken, by what is counted.",
            ["zone"],
            registry=registry,
        )
        self._zones: Sequence[EnergyZone] = ()

    def watch(self, zones: Sequence[EnergyZone]) -> None:
        """Count what these take from now on; of several processes one must do so."""
        self._zones = zones
        self.sample()

    def sample(self) -> None:
        """Take over what was taken since the last time."""
        for zone in self._zones:
            self._joules.labels(zone.name).inc(zone.taken_j())
