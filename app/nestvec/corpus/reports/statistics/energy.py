"""Joules that a run took: by the meters of the machine where it has some, else an estimate that says so.

Source: Linux's powercap for Intel's and AMD's RAPL (`/sys/class/powercap`), which counts whole packages, whatever else
runs on them.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

POWERCAP: Final = Path("/sys/class/powercap")
MICRO: Final = 1e-6
# What a busy core of a server takes with its share of the package: 150 to 360 W over 16 to 96 cores.
ESTIMATED_CORE_W: Final = 8.0
METERED: Final = "RAPL, whole packages"
ESTIMATED: Final = f"an estimate: {ESTIMATED_CORE_W:g} W for each busy core"


class EnergyMeter:
    """Reads the energy that packages have taken.

    Args:
        root: Where Linux shows its meters.
        cpu_s: Returns the CPU seconds that this process has used.
    """

    def __init__(
        self, root: Path = POWERCAP, cpu_s: Callable[[], float] = time.process_time
    ) -> None:
        self._packages = [
            path for path in sorted(root.glob("*-rapl:*")) if path.name.count(":") == 1
        ]
        self._cpu_s = cpu_s
        self._start_cpu_s = 0.0
        self._start: list[tuple[float, float]] = []
        self.start()

    def start(self) -> None:
        """Begin anew."""
        self._start = self._read()
        self._start_cpu_s = self._cpu_s()

    def joules(self) -> tuple[float, str]:
        """Return the joules since the start, and how they were measured."""
        now = self._read()
        if not now or len(now) != len(self._start):
            return (self._cpu_s() - self._start_cpu_s) * ESTIMATED_CORE_W, ESTIMATED
        total = 0.0
        for (before, limit), (after, _) in zip(self._start, now, strict=True):
            # Counters start anew at their limit.
            total += after - before if after >= before else after + limit - before
        return total * MICRO, METERED

    def _read(self) -> list[tuple[float, float]]:
        """Return counter and limit of each package in microjoules; none where they may not be read."""
        try:
            return [
                (
                    float((path / "energy_uj").read_text()),
                    float((path / "max_energy_range_uj").read_text()),
                )
                for path in self._packages
            ]
        except (OSError, ValueError):
            return []
