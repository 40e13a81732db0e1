"""Opens the export of spans: the SDK's queue, its OTLP exporter, and what says that a collector is lost."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from typing_extensions import override

from nestvec import __version__
from nestvec.observability.logs import get_logger
from nestvec.observability.tracing.span_metrics import SpanLoss, SpanMetrics
from nestvec.observability.tracing.span_recorder import SpanRecorder

log = get_logger(__name__)

# How long a process that ends goes on exporting.
CLOSE_S: Final = 2.0
# A collector that stays away is told of so often.
TOLD_EVERY_S: Final = 600.0
# As many spans wait where the variable says nothing (OpenTelemetry's specification).
MAX_WAITING: Final = 2048
NO_REASON: Final = "busy, or too slow"
# What they say goes into one line of ours.
EXPORTER_LOGGER: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


def open_recorder(role: str, metrics: SpanMetrics) -> SpanRecorder:
    """Return what records and exports this process's spans, as the standard variables have it.

    Args:
        role: Role of this process among several.
        metrics: Told of spans that are lost.

    Raises:
        ValueError: A variable has a value that the SDK does not take.
    """
    waiting = WaitingSpans(int(os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE) or MAX_WAITING), metrics)
    exporter = PatientExporter(OTLPSpanExporter(), time.monotonic, waiting)
    processor = BatchSpanProcessor(exporter, max_queue_size=waiting.limit)
    # It makes a sampler of the variables; spans are not made by it.
    sampler = TracerProvider(shutdown_on_exit=False).sampler
    return SpanRecorder(
        sampler,
        resource_of(role),
        lambda span: waiting.hand_over(span, processor.on_end),
        lambda: close_within(CLOSE_S, processor, exporter),
    )


def resource_of(role: str) -> Resource:
    """Return what a process says of itself in each export; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win."""
    own = {
        SERVICE_NAME: "nestvec",
        "service.version": __version__,
        "nestvec.process": role,
    }
    given = Resource.create()
    named = {
        name: value
        for name, value in given.attributes.items()
        if not (name == SERVICE_NAME and str(value).startswith("unknown_service"))
    }
    return ProcessResource({**own, **named})


class ProcessResource(Resource):
    """A resource whose hash is made once; the exporter asks for it with each span, and its own is one of JSON."""

    _hash: int | None = None

    @override
    def __hash__(self) -> int:
        """Return the hash of the attributes."""
        if self._hash is None:
            self._hash = super().__hash__()
        return self._hash


def close_within(
    seconds: float, processor: BatchSpanProcessor, exporter: "PatientExporter"
) -> None:
    """Export what is left, for so many seconds at most."""
    closing = threading.Thread(target=processor.shutdown, name="nestvec-traces-end", daemon=True)
    closing.start()
    closing.join(seconds)
    if closing.is_alive():
        exporter.shutdown()


class WaitingSpans:
    """Bounds and counts the spans that wait for their export.

    The SDK's queue has the same bound, but drops the oldest for a new one and tells nobody how many.

    Args:
        limit: How many may wait.
        metrics: Told of those that are lost.

    Attributes:
        limit: How many may wait.
        metrics: Told of those that are lost.
    """

    def __init__(self, limit: int, metrics: SpanMetrics) -> None:
        self.limit, self.metrics = limit, metrics
        self._count, self._lock = 0, threading.Lock()

    def hand_over(self, span: ReadableSpan, queue: Callable[[ReadableSpan], None]) -> None:
        """Hand a span over to a queue; one that finds no room is lost."""
        with self._lock:
            has_room = self._count < self.limit
            self._count += has_room
        if has_room:
            queue(span)
        else:
            self.metrics.lose(SpanLoss.QUEUE_FULL)

    def left(self, spans: int) -> None:
        """Note that so many have left the queue."""
        with self._lock:
            self._count -= spans


class PatientExporter(SpanExporter):
    """Exports spans, and says in one line when that begins to fail, still does, or works again.

    Args:
        exporter: Exports them; logs what it meets to its own logger, which is silenced.
        clock: Monotonic seconds.
        waiting: Told of what has left the queue.
    """

    def __init__(
        self, exporter: SpanExporter, clock: Callable[[], float], waiting: WaitingSpans
    ) -> None:
        self._exporter, self._clock, self._waiting = exporter, clock, waiting
        self._reasons = ReasonFilter()
        self._lost, self._told_s = 0, float("-inf")
        self._is_told = self._is_closed = False
        logging.getLogger(EXPORTER_LOGGER).filters[:] = [self._reasons]

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export spans; those that cannot be are lost."""
        self._waiting.left(len(spans))
        if self._is_closed:
            return SpanExportResult.FAILURE
        self._reasons.reason = NO_REASON
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - the SDK would log its message with a traceback
            self._reasons.reason = type(error).__name__
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            if self._is_told:
                log.info("traces_exported_again", lost_spans=self._lost)
                self._lost, self._is_told = 0, False
            return result
        self._lost += len(spans)
        self._waiting.metrics.lose(SpanLoss.NOT_EXPORTED, len(spans))
        if self._clock() - self._told_s >= TOLD_EVERY_S and not self._is_closed:
            self._told_s, self._is_told = self._clock(), True
            log.warning(
                "traces_not_exported",
                reason=self._reasons.reason,
                lost_spans=self._lost,
                hint="requests are served as before; OTEL_EXPORTER_OTLP_ENDPOINT says where a collector should be",
            )
        return result

    @override
    def shutdown(self) -> None:
        """Export nothing more, and do not try again what has just failed."""
        if not self._is_closed:
            self._is_closed = True
            self._exporter.shutdown()


class ReasonFilter(logging.Filter):
    """Lets nothing of a logger through, and remembers why an export failed: a status, or an error's type.

    Attributes:
        reason: Why the last one did; of one that was tried again until its time was up, why it was.
    """

    reason = NO_REASON

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Remember a record's reason, where it has one."""
        for value in record.args if isinstance(record.args, tuple) else ():
            if isinstance(value, Exception):
                self.reason = type(value).__name__
            elif isinstance(value, int):
                self.reason = f"HTTP {value}"
        return False
