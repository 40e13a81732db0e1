"""Spans of micro-batches, made where the batches run: in the server's one process, or in an engine process.

A micro-batch serves many requests, so its span is the first of a trace of its own, linked to the calls in it that are
recorded. Each of these calls gets what is its own: how long it waited, where that is worth a span, and the run, linked
to the batch.
"""

import time
from typing import TYPE_CHECKING, Final

from nestvec.engine.observer import BatchStats
from nestvec.observability.tracing.finished_span import FinishedSpan, is_worth_a_span
from nestvec.observability.tracing.trace_context import TraceContext

# It needs the extra, which there is where spans are recorded.
if TYPE_CHECKING:
    from nestvec.observability.tracing.span_recorder import SpanRecorder

# As many as OpenTelemetry's SDK gives a span by default.
MAX_LINKS: Final = 128


def call_word(place: TraceContext) -> str:
    """Return a call's place as the one word that the engine hands on."""
    return f"{place.traceparent} {place.state}" if place.state else place.traceparent


def place_of(word: str) -> TraceContext | None:
    """Return the place that `call_word` was given; None for any other word."""
    parent, _, state = word.encode().partition(b" ")
    return TraceContext.parse(parent, state)


class BatchSpans:
    """Records the spans of micro-batches, as `EngineMetrics.record_batch`; called by the workers' threads.

    Args:
        recorder: Takes them.
        serves_others: Whether the calls come from other processes.
    """

    def __init__(self, recorder: "SpanRecorder", *, serves_others: bool = False) -> None:
        self._recorder, self._serves_others = recorder, serves_others

    def record(self, model: str, stats: BatchStats) -> None:
        """Record a micro-batch that has just ended."""
        recorder, ended_s = self._recorder, time.monotonic()
        started_s = ended_s - stats.engine_s
        has_failed = stats.outcome != "ok"
        batch, links = recorder.new_trace(), []
        for word, wait_s in stats.traces.items():
            call = place_of(word)
            if call is None:
                continue
            links.append(call)
            run = FinishedSpan(
                *("run", recorder.new_span_id(), call, started_s, ended_s),
                has_failed=has_failed,
                links=(batch,),
                has_remote_parent=self._serves_others,
            )
            spans = [run]
            if is_worth_a_span(wait_s):
                queue = FinishedSpan(
                    *("queue", recorder.new_span_id(), call, started_s - wait_s, started_s),
                    has_remote_parent=self._serves_others,
                )
                spans.append(queue)
            recorder.record(call, spans)
        attributes = {"nestvec.batch.inputs": stats.items, "nestvec.batch.tokens": stats.tokens}
        whole = FinishedSpan(
            *(f"batch {model}", batch.span_id, None, started_s, ended_s, attributes),
            has_failed=has_failed,
            links=links[:MAX_LINKS],
        )
        recorder.record(batch, [whole])
