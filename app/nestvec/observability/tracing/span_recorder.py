"""Decides which traces are recorded, and hands finished spans to OpenTelemetry's SDK.

A span is made when it has ended, from times that are measured anyway: nothing is kept open while a request runs, and
its id is known before, so that another process can record what belongs under it. The SDK's own spans, open from the
start on, cost five times as much.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from nestvec import __version__
from nestvec.observability.tracing.finished_span import FinishedSpan
from nestvec.observability.tracing.trace_context import TraceContext

SCOPE: Final = InstrumentationScope("nestvec", __version__)
SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
NOT_SAMPLED: Final = TraceFlags(TraceFlags.DEFAULT)
NO_PARENT: Final = Context()
OK: Final = Status(StatusCode.UNSET)
# Without a description: that would be an error's message.
FAILED: Final = Status(StatusCode.ERROR)


class SpanRecorder:
    """Records the spans of one process.

    Args:
        sampler: Decides about traces that begin here or come in.
        resource: What this process is.
        export: Takes a finished span; never blocks.
        close: Exports what is left, within a bound.
    """

    def __init__(
        self,
        sampler: Sampler,
        resource: Resource,
        export: Callable[[ReadableSpan], None],
        close: Callable[[], None],
    ) -> None:
        self._sampler, self._resource, self._export = sampler, resource, export
        self._ids = RandomIdGenerator()
        self.close = close

    def sampled(self, parent: TraceContext | None, name: str) -> TraceContext | None:
        """Return the place of a new span; None where its trace is not recorded.

        Args:
            parent: Where its caller is; None for a new trace.
            name: What the span is called, as far as it is known.
        """
        if parent is None:
            trace_id, context = self._ids.generate_trace_id(), NO_PARENT
        else:
            trace_id = int(parent.trace_id, 16)
            context = set_span_in_context(
                NonRecordingSpan(_context(parent, is_remote=True)), NO_PARENT
            )
        result = self._sampler.should_sample(context, trace_id, name, SpanKind.SERVER)
        if result.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        state = result.trace_state.to_header() if result.trace_state else ""
        return TraceContext(f"{trace_id:032x}", self.new_span_id(), True, state)  # noqa: FBT003

    def new_trace(self) -> TraceContext:
        """Return the place of the first span of a new trace that is recorded whatever the sampler says."""
        trace_id = f"{self._ids.generate_trace_id():032x}"
        return TraceContext(trace_id, self.new_span_id(), True)  # noqa: FBT003

    def new_span_id(self) -> str:
        """Return the id of a new span."""
        return f"{self._ids.generate_span_id():016x}"

    def record(self, trace: TraceContext, spans: Sequence[FinishedSpan]) -> None:
        """Hand over spans of one trace; nothing waits for their export.

        Args:
            trace: Any place in the trace.
            spans: Spans of this process that have ended.
        """
        # Read anew, as the clock is set now and then.
        offset_ns = time.time_ns() - time.monotonic_ns()
        contexts: dict[tuple[TraceContext, bool], SpanContext] = {}

        def context_of(place: TraceContext, *, is_remote: bool = False) -> SpanContext:
            """Return a place as the SDK has it; most are parents of several spans."""
            context = contexts.get((place, is_remote))
            if context is None:
                context = contexts[place, is_remote] = _context(place, is_remote=is_remote)
            return context

        for span in spans:
            parent = span.parent
            self._export(
                ReadableSpan(
                    span.name,
                    context=context_of(trace._replace(span_id=span.span_id)),
                    parent=parent and context_of(parent, is_remote=span.has_remote_parent),
                    resource=self._resource,
                    attributes=span.attributes,
                    links=[Link(context_of(other, is_remote=True)) for other in span.links],
                    kind=SpanKind.SERVER if span.is_server else SpanKind.INTERNAL,
                    status=FAILED if span.has_failed else OK,
                    start_time=offset_ns + int(span.started_s * 1e9),
                    end_time=offset_ns + int(span.ended_s * 1e9),
                    instrumentation_scope=SCOPE,
                )
            )


def _context(place: TraceContext, *, is_remote: bool) -> SpanContext:
    return SpanContext(
        int(place.trace_id, 16),
        int(place.span_id, 16),
        is_remote=is_remote,
        trace_flags=SAMPLED if place.is_sampled else NOT_SAMPLED,
        trace_state=TraceState.from_header([place.state]) if place.state else None,
    )
