"""Metrics of HTTP: requests, connections, bodies, and the event loop that serves them."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram

from nestvec.observability.metric_buckets import SECONDS
from nestvec.observability.series import Series
from nestvec.observability.shared_metrics import summed_gauge

OPERATIONS: Final = "operations"
# Why connections are closed on their callers.
CLOSED_FOR: Final = (
    *("too_many", "silent", "headers", "trailers", "malformed"),
    *("slow_headers", "slow_body", "slow_reader"),
)
LAG_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Answer(NamedTuple):
    """What a request was, and how it was answered.

    Attributes:
        route: Path of its route, with parameters by name.
        dialect: The dialect that it was in; `OPERATIONS` for what operators and their tools ask for.
        model: The served model that it meant; "" for none, or an unknown one.
        status: HTTP's status.
        outcome: "ok", "rejected", "error" or "cancelled".
        code: The code of the error that it was answered with; "" for none.
    """

    route: str
    dialect: str
    model: str
    status: int
    outcome: str
    code: str = ""


class HttpMetrics:
    """Counts requests and connections.

    Args:
        registry: Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Series(
            Counter(
                "nestvec_requests_total",
                "HTTP requests answered, by route, dialect, model and status.",
                ["route", "dialect", "model", "status"],
                registry=registry,
            )
        )
        self._errors = Series(
            Counter(
                "nestvec_request_errors_total",
                "Requests answered with an error, by its code.",
                ["model", "code"],
                registry=registry,
            )
        )
        self._operations = Series(
            Counter(
                "nestvec_operations_requests_total",
                "Health checks, scrapes and pages of the server's own, by route and status.",
                ["route", "status"],
                registry=registry,
            )
        )
        self._request_duration = Series(
            Histogram(
                "nestvec_request_duration_seconds",
                "From the first byte to the end of the answer, by route, dialect, model and outcome.",
                ["route", "dialect", "model", "outcome"],
                buckets=SECONDS,
                registry=registry,
            )
        )
        self._stage_duration = Series(
            Histogram(
                "nestvec_request_stage_duration_seconds",
                "What each stage of a request for vectors took.",
                ["model", "stage"],
                buckets=SECONDS,
                registry=registry,
            )
        )
        self.in_flight = summed_gauge(
            registry, "nestvec_in_flight_requests", "HTTP requests being answered."
        )
        self._make_connection_metrics(registry)
        self._read_body_bytes: Callable[[], int] = int

    def _make_connection_metrics(self, registry: CollectorRegistry) -> None:
        """Make the metrics of connections, of what comes over them, and of the loop that serves them."""
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
        for reason in CLOSED_FOR:
            self.refused_connections.labels(
                reason
            )  # at zero, so that the first one is seen as a rise
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

    def request_done(
        self, answer: Answer, took_s: float, stages_s: Mapping[str, float], trace_id: str = ""
    ) -> None:
        """Count a request whose answer is out; what operators ask for is no traffic of users.

        Args:
            answer: What it was.
            took_s: Seconds from its first byte to the end of the answer.
            stages_s: Seconds of each stage of it that is known.
            trace_id: Id of its trace, an exemplar of its durations in OpenMetrics' form; "" for none.
        """
        route, dialect, model, status, outcome, code = answer
        if dialect == OPERATIONS:
            self._operations[route, str(status)].inc()
            return
        exemplar = {"trace_id": trace_id} if trace_id else None
        self._requests[route, dialect, model, str(status)].inc()
        self._request_duration[route, dialect, model, outcome].observe(took_s, exemplar)
        if code:
            self._errors[model, code].inc()
        for stage, stage_s in stages_s.items():
            self._stage_duration[model, stage].observe(stage_s, exemplar)

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
