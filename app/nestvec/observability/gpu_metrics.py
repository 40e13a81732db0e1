"""Metrics of GPUs, as their management library (NVML) tells them."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from nestvec.system.nvml import GpuState


class GpuMetrics:
    """Says how each GPU is.

    Args:
        registry: Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(
                f"nestvec_gpu_{name}",
                text,
                ["device"],
                registry=registry,
                multiprocess_mode="livemostrecent",
            )

        self._up = gauge("up", "1 while the GPU answers its management library, 0 when not.")
        # By the attribute of `GpuState`.
        self._values: dict[str, Gauge] = {
            "utilization": gauge("utilization_ratio", "Share of the time in which a kernel ran."),
            "memory_used_bytes": gauge("memory_used_bytes", "Taken by all processes."),
            "memory_total_bytes": gauge("memory_total_bytes", "Of the card."),
            "temperature_c": gauge("temperature_celsius", "Of the chip."),
            "power_w": gauge("power_watts", "Drawn now."),
            "uncorrected_errors": gauge(
                "memory_errors", "Uncorrected errors of its memory since the driver started."
            ),
        }

        self._energy = Counter(
            "nestvec_gpu_energy_joules_total",
            "Energy that the GPU has taken since it is watched.",
            ["device"],
            registry=registry,
        )
        self._last_energy_j: dict[int, float] = {}

    def gpu_answered(self, number: int, state: GpuState) -> None:
        """Note the state of a GPU; a value that it does not tell has no series."""
        self._up.labels(str(number)).set(1)
        for name, gauge in self._values.items():
            value = getattr(state, name)
            if value is not None:
                gauge.labels(str(number)).set(value)
        if state.energy_j is not None:
            # It begins again with the driver.
            grown_j = state.energy_j - self._last_energy_j.get(number, state.energy_j)
            self._energy.labels(str(number)).inc(max(0.0, grown_j))
            self._last_energy_j[number] = state.energy_j

    def gpu_silent(self, number: int) -> None:
        """Note that a GPU does not answer."""
        self._up.labels(str(number)).set(0)
