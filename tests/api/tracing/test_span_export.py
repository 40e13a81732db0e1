"""The export of spans: what a lost collector costs, what is said of it, how a process ends, what it says it is."""

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from typing_extensions import override

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from nestvec import __version__
from nestvec.observability.tracing.environment import start_recorder
from nestvec.observability.tracing.finished_span import FinishedSpan
from nestvec.observability.tracing.span_export import (
    EXPORTER_LOGGER,
    TOLD_EVERY_S,
    PatientExporter,
    WaitingSpans,
    close_within,
    open_recorder,
    resource_of,
)
from nestvec.observability.tracing.span_metrics import SpanMetrics
from nestvec.observability.tracing.span_recorder import SpanRecorder
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from tests.support.collector import running_collector
from tests.support.fakes import FakeClock

SPAN = ReadableSpan("work")
GOOD, BAD = SpanExportResult.SUCCESS, SpanExportResult.FAILURE


class FakeExporter(SpanExporter):
    """Exports as it is told, and holds every export while its gate is closed."""

    result: SpanExportResult = GOOD
    error: Exception | None = None
    told: Exception | int | None = None

    def __init__(self) -> None:
        self.gate, self.begun, self.closed = (threading.Event() for _ in range(3))
        self.gate.set()
        self.exported = 0

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Do as told, once the gate is open."""
        self.begun.set()
        self.gate.wait(30)
        if self.told is not None:
            logger = logging.getLogger(EXPORTER_LOGGER)
            logger.warning("secret %s, again in %.2f s", self.told, 1.0)
            logger.error("no more time for %s", "secret")
        if self.error is not None:
            raise self.error
        self.exported += len(spans) if self.result is GOOD else 0
        return self.result

    @override
    def shutdown(self) -> None:
        """Remember it, and open the gate: what waits is given up."""
        self.closed.set()
        self.gate.set()


@pytest.fixture(autouse=True)
def _other_logs_stay() -> Iterator[None]:
    """Leave the SDK's logger as it was."""
    exporting = logging.getLogger(EXPORTER_LOGGER)
    kept = exporting.filters[:]
    yield
    exporting.filters[:] = kept


@dataclass
class Losses:
    """What was counted as lost, and the bound on what waits.

    Args:
        limit: How many spans may wait.
    """

    limit: int = 64

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()
        self.waiting = WaitingSpans(self.limit, SpanMetrics(self.registry))

    def counts(self) -> tuple[float | None, float | None]:
        """Return how many found no room, and how many could not be exported."""
        values = [
            self.registry.get_sample_value("nestvec_lost_spans_total", {"reason": reason})
            for reason in ("queue_full", "not_exported")
        ]
        return values[0], values[1]


def test_a_lost_collector_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """Then every ten minutes, however it comes and goes, and when it is back; the SDK's own lines are kept back."""
    clock, inner = FakeClock(), FakeExporter()
    losses = Losses()
    exporter = PatientExporter(inner, clock, losses.waiting)
    inner.result, inner.told = BAD, ConnectionError("secret")
    with capture_logs() as logs:
        for _ in range(50):
            assert exporter.export([SPAN] * 3) is BAD
        clock.now_s += TOLD_EVERY_S
        inner.told = 503
        exporter.export([SPAN])
        inner.result = GOOD
        assert exporter.export([SPAN]) is GOOD
        for inner.result in (GOOD, BAD, GOOD, BAD, GOOD):
            exporter.export([SPAN])
    told = [(line["event"], line.get("reason"), line["lost_spans"]) for line in logs]
    assert not caplog.records
    assert losses.counts() == (0, 50 * 3 + 1 + 2)
    assert told == [
        ("traces_not_exported", "ConnectionError", 3),
        ("traces_not_exported", "HTTP 503", 151),
        ("traces_exported_again", None, 151),
    ]
    assert "secret" not in str(logs)


def test_an_exporter_that_breaks_is_one_that_fails() -> None:
    """By its error's type; its message may quote anything."""
    inner = FakeExporter()
    inner.error = ValueError("secret")
    with capture_logs() as logs:
        assert PatientExporter(inner, FakeClock(), Losses().waiting).export([SPAN]) is BAD
    assert [line["reason"] for line in logs] == ["ValueError"]
    assert "secret" not in str(logs)


def test_nobody_waits_for_a_collector(caplog: pytest.LogCaptureFixture) -> None:
    """Spans are handed over while nothing is exported; those that find no room are counted; the end comes."""
    inner = FakeExporter()
    inner.gate.clear()
    losses = Losses(64)
    exporter = PatientExporter(inner, FakeClock(), losses.waiting)
    processor = BatchSpanProcessor(exporter, max_queue_size=64, max_export_batch_size=16)
    recorder = SpanRecorder(
        ALWAYS_ON,
        Resource({}),
        lambda span: losses.waiting.hand_over(span, processor.on_end),
        lambda: close_within(0.01, processor, exporter),
    )
    trace = recorder.new_trace()
    with caplog.at_level(logging.DEBUG):
        span = FinishedSpan("work", trace.span_id, None, 1.0, 2.0)
        recorder.record(trace, [span] * 16)
        assert inner.begun.wait(30)
        for _ in range(20):
            recorder.record(trace, [span] * 10)
        assert inner.exported == 0
        assert losses.counts() == (200 - 64, 0)
        recorder.close()
    assert inner.closed.is_set()
    assert not caplog.records


def test_the_end_exports_what_is_left() -> None:
    """Of spans that have ended none is lost where the collector answers."""
    inner = FakeExporter()
    exporter = PatientExporter(inner, FakeClock(), Losses().waiting)
    processor = BatchSpanProcessor(exporter)
    recorder = SpanRecorder(
        ALWAYS_ON, Resource({}), processor.on_end, lambda: close_within(30, processor, exporter)
    )
    trace = recorder.new_trace()
    recorder.record(trace, [FinishedSpan("work", trace.span_id, None, 1.0, 2.0)] * 7)
    recorder.close()
    assert inner.exported == 7


def test_variables_are_the_sdks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoint, sampler and service come from the standard variables; what the SDK refuses leaves a server without."""
    with running_collector() as collector:
        for name, value in (
            ("EXPORTER_OTLP_ENDPOINT", collector.url),
            ("EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("TRACES_SAMPLER", "parentbased_traceidratio"),
            ("TRACES_SAMPLER_ARG", "0"),
            ("SERVICE_NAME", "search"),
        ):
            monkeypatch.setenv(f"OTEL_{name}", value)
        recorder = open_recorder("front-0", SpanMetrics(CollectorRegistry()))
        assert recorder.sampled(None, "GET") is None
        trace = recorder.new_trace()
        place = recorder.sampled(trace, "GET")
        assert place is not None
        recorder.record(place, [FinishedSpan("work", place.span_id, trace, 1.0, 2.0)])
        recorder.close()
    (span,) = collector.spans()
    assert (span.process, span.service, span.name) == ("front-0", "search", "work")
    assert (span.trace_id, span.parent_id) == (trace.trace_id, trace.span_id)
    assert span.ended_ns - span.started_ns == 10**9
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1")
    with capture_logs() as logs:
        assert start_recorder("front-0", SpanMetrics(CollectorRegistry())) is None
    assert [line["event"] for line in logs] == ["traces_off"]


def test_a_process_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is nestvec unless a variable names it."""
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    own = resource_of("core").attributes
    assert (own["service.name"], own["service.version"]) == ("nestvec", __version__)
    assert own["nestvec.process"] == "core"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,deployment.environment.name=b")
    named = resource_of("core").attributes
    assert (named["service.name"], named["deployment.environment.name"]) == ("a", "b")
