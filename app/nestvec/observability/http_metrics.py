"""Metrics of HTTP: requests, connections, bodies, and the event loop that serves them."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram

from nestvec.observability.metric_buckets import SECONDS
from nestvec.observability.shared_metrics import summed_gauge

LAG_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Answer(NamedTuple):
    """What a request was, and how it was answered.

    Attributes:
        route: Path of its route, with parameters by name.
        dialect: The dialect that it was in.
        model: The served model that it meant; "" for none, or an unknown one.
        status: HTTP's status.
        outcome: "ok", "rejected", "error" or "cancelled".
    """

    route: str
    dialect: str
    model: str
    status: int
    outcome: str


class HttpMetrics:
    """Counts requests and connections.

    Args:
        registry: Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "nestvec_requests_total",
            "HTTP requests answered, by route, dialect, model and status.",
            ["route", "dialect", "model", "status"],
            registry=registry,
        )
        self.request_duration = Histogram(
            "nestvec_request_duration_seconds",
            "From the first byte to the end of the answer, by route, model and outcome.",
            ["route", "model", "outcome"],
            buckets=SECONDS,
            registry=registry,
        )
        self._stage_duration = Histogram(
            "nestvec_request_stage_duration_seconds",
            "What each stage of a request for vectors took.",
            ["model", "stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = summed_gauge(
            registry, "nestvec_in_flight_requests", "HTTP requests being answered."
        )
        self.connections = summed_gauge(registry, "nestvec_connections", "Open HTTP connections.")
        self.connections_limit = summed_gauge(
            registry, "nestvec_connections_limit", "Connections that may be open."
        )
        self._body_bytes_limit = summed_gauge(
            registry, "nestvec_in_flight_body_limit_bytes", "Bytes of bodies that may be held."
        )
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

    def request_done(
        self, answer: Answer, took_s: float, stages_s: Mapping[str, float], trace_id: str = ""
    ) -> None:
        """Count a request whose answer is out.

        Args:
            answer: What it was.
            took_s: Seconds from its first byte to the end of the answer.
            stages_s: Seconds of each stage of it that is known.
            trace_id: Id of its trace, an exemplar of its durations in OpenMetrics' form; "" for none.
        """
        exemplar = {"trace_id": trace_id} if trace_id else None
        route, dialect, model, status, outcome = answer
        self.requests.labels(route, dialect, model, str(status)).inc()
        self.request_duration.labels(route, model, outcome).observe(took_s, exemplar)
        for stage, stage_s in stages_s.items():
            self._stage_duration.labels(model, stage).observe(stage_s, exemplar)

    def watch_body_bytes(self, read: Callable[[], int], max_bytes: int) -> None:
        """Sample how many bytes of bodies are held from now on.

        Args:
            read: Gives that number.
            max_bytes: How many there may be.
        """
        self._read_body_bytes = read
        self._body_bytes_limit.set(max_bytes)

    def sample(self) -> None:
        """Take over how many bytes of bodies are held now."""
        self._body_bytes.set(self._read_body_bytes())
