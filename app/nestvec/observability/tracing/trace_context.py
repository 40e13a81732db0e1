"""W3C trace context (https://www.w3.org/TR/trace-context): which trace a request belongs to. Pure, without a library.

It is read whether spans are recorded or not: a caller's trace id belongs into the log either way.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Self

# Version 00 has four fields; of later versions the first four are read, as the specification has it.
TRACEPARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
SAMPLED: Final = 1
# What others must take; a longer one is left out, and the trace goes on without it.
MAX_STATE_BYTES: Final = 512


class TraceContext(NamedTuple):
    """A place in a trace.

    Attributes:
        trace_id: Id of the trace, 32 hexadecimal digits.
        span_id: Id of the span there, 16 hexadecimal digits.
        is_sampled: Whether the trace is recorded.
        state: What tracing systems hand on beside it, as `tracestate` has it; "" for nothing.
    """

    trace_id: str
    span_id: str
    is_sampled: bool
    state: str = ""

    @classmethod
    def of_headers(cls, headers: Iterable[tuple[bytes, bytes]]) -> Self | None:
        """Read the place that a request comes from.

        Args:
            headers: Names, in small letters, and values.

        Returns:
            None where no `traceparent` came, or one that is malformed, or several: a new trace begins then.
        """
        parent, states = b"", []
        for name, value in headers:
            if name == b"traceparent":
                if parent:
                    return None
                parent = value
            elif name == b"tracestate":
                states.append(value)
        if not parent:
            return None
        return cls.parse(parent, b",".join(states))

    @classmethod
    def parse(cls, parent: bytes, state: bytes = b"") -> Self | None:
        """Read a `traceparent` and a `tracestate`; None where the first is malformed."""
        match = TRACEPARENT.fullmatch(parent.strip(b" \t"))
        if match is None or (match[1] == b"00" and match[5] is not None):
            return None
        is_kept = len(state) <= MAX_STATE_BYTES and state.isascii()
        return cls(
            match[2].decode(),
            match[3].decode(),
            bool(int(match[4], 16) & SAMPLED),
            state.decode() if is_kept else "",
        )

    @property
    def traceparent(self) -> str:
        """The place as a `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{SAMPLED if self.is_sampled else 0:02x}"


def inherited_headers(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that put requests into the trace that a process was started in; none where there is none.

    https://opentelemetry.io/docs/specs/otel/context/env-carriers
    """
    parent = environment.get("TRACEPARENT", "")
    place = TraceContext.parse(parent.encode(), environment.get("TRACESTATE", "").encode())
    if place is None:
        return {}
    state = {"tracestate": place.state} if place.state else {}
    return {"traceparent": parent.strip(), **state}
