"""Metrics of HTTP: requests, connections, bodies, and the event loop that serves them."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from nestvec.observability.metric_buckets import SECONDS
from nestvec.observability.shared_metrics import summed_gauge

LAG_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class HttpMetrics:
    """Counts requests and connections.

    Args:
        registry: Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "nestvec_requests_total",
            "HTTP requests answered, by route, dialect and status.",
            ["route", "dialect", "status"],
            registry=registry,
        )
        self.request_duration = Histogram(
            "nestvec_request_duration_seconds",
            "From the first byte to the end of the answer, by route and outcome.",
            ["route", "outcome"],
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = summed_gauge(
            registry, "nestvec_in_flight_requests", "HTTP requests being answered."
        )
        self.connections = summed_gauge(registry, "nestvec_connections", "Open HTTP connections.")
        self._body_bytes = summed_gauge(
            registry, "nestvec_in_flight_body_bytes", "Bodies of requests being answered."
        )
        self.refused_connections = Counter(
            "nestvec_refused_connections_total",
            "Connections that were closed on the caller, by reason.",
            ["reason"],
            registry=registry,
        )
        self.ignored_fields = Counter(
            "nestvec_ignored_fields_total",
            "Unknown request fields that were ignored.",
            registry=registry,
        )
        self.loop_lag = Histogram(
            "nestvec_event_loop_lag_seconds",
            "How late the event loop was when it was asked, ten times a second.",
            buckets=LAG_SECONDS,
            registry=registry,
        )
        self._read_body_bytes: Callable[[], int] = int

    def watch_body_bytes(self, read: Callable[[], int]) -> None:
        """Sample how many bytes of bodies are held from now on.

        Args:
            read: Gives that number.
        """
        self._read_body_bytes = read

    def sample(self) -> None:
        """Take over how many bytes of bodies are held now."""
        self._body_bytes.set(self._read_body_bytes())
