"""A span that has ended, before the SDK's own form of it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from nestvec.observability.tracing.trace_context import TraceContext

Attributes = Mapping[str, str | int | Sequence[str]]

# A stage that took less has no span of its own: making, encoding and sending one costs more than most stages of short
# texts take. Log lines and `server-timing` tell of every stage.
MIN_STAGE_S: Final = 0.001


class FinishedSpan(NamedTuple):
    """A span that has ended.

    Attributes:
        name: What was done.
        span_id: Its id.
        parent: Where it belongs; None for the first of a trace.
        started_s: Monotonic time when it began.
        ended_s: Monotonic time when it ended.
        attributes: What is told of it: never a text, a vector or a key; None for nothing.
        is_server: Whether it is an HTTP request that was answered.
        has_failed: Whether the server was at fault.
        links: Spans of other traces that have to do with it.
        has_remote_parent: Whether its parent is another process's span.
    """

    name: str
    span_id: str
    parent: TraceContext | None
    started_s: float
    ended_s: float
    attributes: Attributes | None = None
    is_server: bool = False
    has_failed: bool = False
    links: Sequence[TraceContext] = ()
    has_remote_parent: bool = False


def is_worth_a_span(took_s: float) -> bool:
    """Return whether a stage that took so many seconds is told of by a span of its own."""
    return took_s >= MIN_STAGE_S
