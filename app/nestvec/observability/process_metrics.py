"""Metrics of processes: their memory, their restarts, and whether the engine hangs."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from nestvec.observability.shared_metrics import summed_gauge
from nestvec.system.memory import resident_bytes, usable_memory_bytes


class ProcessMetrics:
    """Says how the processes of a server are.

    Args:
        registry: Where the metrics live.
        role: Role of this process among several.
    """

    def __init__(self, registry: CollectorRegistry, role: str) -> None:
        self._role = role
        self._memory = Gauge(
            "nestvec_process_resident_memory_bytes",
            "Resident memory, by the process's role.",
            ["role"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        limit = Gauge(
            "nestvec_memory_limit_bytes",
            "Memory that the server's processes may take together.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        limit.set(usable_memory_bytes())
        self._restarts = Counter(
            "nestvec_process_restarts_total",
            "Processes that ended unasked and were started again, by role.",
            ["role"],
            registry=registry,
        )
        self._hangs = Counter(
            "nestvec_process_hangs_total",
            "Processes that hung, were killed and started again, by role.",
            ["role"],
            registry=registry,
        )
        for counter in (self._restarts, self._hangs):
            counter.labels(role)  # at zero, so that the first one is seen as a rise
        self.suspects = summed_gauge(
            registry, "nestvec_suspect_inputs", "Inputs that ran when the engine died."
        )
        self.quarantined = summed_gauge(
            registry, "nestvec_quarantined_inputs", "Inputs that are not run for now."
        )
        self.overdue = summed_gauge(
            registry,
            "nestvec_engine_overdue_seconds",
            "By how much the slowest running micro-batch is over its time; 0 in health.",
        )

    def note_start(self, earlier: int, *, was_hung: bool) -> None:
        """Count what became of the process before this one.

        Args:
            earlier: How many processes this one takes the place of; 0 where it is the first of its role.
            was_hung: Whether the last one was killed because it hung.
        """
        if earlier:
            self._restarts.labels(self._role).inc()
        if was_hung:
            self._hangs.labels(self._role).inc()

    def sample(self) -> None:
        """Take over how much memory this process has now."""
        self._memory.labels(self._role).set(resident_bytes())
