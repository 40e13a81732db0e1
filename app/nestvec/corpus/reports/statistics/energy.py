"""Joules that a run took: by the meters of the machine where it has some, else an estimate that says so.

Source: Linux's powercap for Intel's and AMD's RAPL (`/sys/class/powercap`), which counts whole packages, whatever else
runs on them; NVIDIA's NVML (`nvmlDeviceGetTotalEnergyConsumption`) for whole cards.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from nestvec.errors import ProviderError
from nestvec.system.cuda_driver import read_driver
from nestvec.system.nvml import Nvml

POWERCAP: Final = Path("/sys/class/powercap")
MICRO: Final = 1e-6
# What a busy core of a server takes with its share of the package: 150 to 360 W over 16 to 96 cores.
ESTIMATED_CORE_W: Final = 8.0
METERED: Final = "RAPL, whole packages"
ESTIMATED: Final = f"an estimate: {ESTIMATED_CORE_W:g} W for each busy core"
GPUS_METERED: Final = "NVML, all {count} GPUs that this process may use"
GPUS_UNKNOWN: Final = "GPUs are not in it, as NVML does not tell their energy here"

# Returns the joules that each GPU has taken since its driver started; none where nothing tells them.
GpuReader = Callable[[], Sequence[float]]


def _uuids() -> Sequence[str]:
    """Return the UUIDs of the GPUs that this process may use."""
    return [gpu.uuid for gpu in read_driver().gpus]


def gpu_reader(
    read_uuids: Callable[[], Sequence[str]] = _uuids,
    open_library: Callable[[], Any] = Nvml,
) -> GpuReader:
    """Return what reads the counters of the GPUs that this process may use.

    Args:
        read_uuids: Returns the GPUs' UUIDs; may raise ProviderError where there is no driver.
        open_library: Opens NVML; may raise ProviderError where it is missing.
    """
    try:
        uuids = read_uuids()
        library = open_library()
    except ProviderError:
        return tuple

    def read() -> Sequence[float]:
        try:
            counters = [library.state(uuid).energy_j for uuid in uuids]
        except ProviderError:
            return ()
        # Parts of cards (MIG) and old cards count none; a sum without some of them would mislead.
        return () if None in counters else counters

    return read


class EnergyMeter:
    """Reads the energy that packages have taken, and GPUs.

    Args:
        root: Where Linux shows its meters.
        cpu_s: Returns the CPU seconds that this process has used.
        read_gpus: Reads the counters of GPUs; None where the model does not run on one, and theirs is not its cost.
    """

    def __init__(
        self,
        root: Path = POWERCAP,
        cpu_s: Callable[[], float] = time.process_time,
        read_gpus: GpuReader | None = None,
    ) -> None:
        self._packages = [
            path for path in sorted(root.glob("*-rapl:*")) if path.name.count(":") == 1
        ]
        self._cpu_s = cpu_s
        self._read_gpus = read_gpus
        self._start_cpu_s = 0.0
        self._start_gpus: Sequence[float] = ()
        self._start: list[tuple[float, float]] = []
        self.start()

    def start(self) -> None:
        """Begin anew."""
        self._start = self._read()
        self._start_cpu_s = self._cpu_s()
        self._start_gpus = () if self._read_gpus is None else self._read_gpus()

    def joules(self) -> tuple[float, str]:
        """Return the joules since the start, and how they were measured."""
        joules, how = self._cpu_joules()
        if self._read_gpus is None:
            return joules, how
        now = self._read_gpus()
        if not now or len(now) != len(self._start_gpus):
            return joules, f"{how}; {GPUS_UNKNOWN}"
        grown = (after - before for before, after in zip(self._start_gpus, now, strict=True))
        # Counters start anew with the driver.
        gpu_joules = sum(max(0.0, each) for each in grown)
        return joules + gpu_joules, f"{GPUS_METERED.format(count=len(now))}; CPUs: {how}"

    def _cpu_joules(self) -> tuple[float, str]:
        """Return the packages' joules since the start, or an estimate of the process's, and how they were measured."""
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
