"""Metrics of how far what a server is asked for has moved from texts of reference."""

from prometheus_client import CollectorRegistry, Gauge


class DriftMetrics:
    """Says what the last test of each model found; of several processes, each with a sample of its own, the worst.

    Args:
        registry: Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._p = Gauge(
            "nestvec_drift_p",
            "Probability of vectors as far from the reference's as those given lately, if nothing has changed.",
            ["model"],
            registry=registry,
            multiprocess_mode="livemin",
        )
        self._distance = Gauge(
            "nestvec_drift_distance",
            "Energy distance of the vectors given lately from the reference's.",
            ["model"],
            registry=registry,
            multiprocess_mode="livemax",
        )

    def drift_tested(self, model: str, *, distance: float, p: float) -> None:
        """Note what a test has found."""
        self._p.labels(model).set(p)
        self._distance.labels(model).set(distance)
