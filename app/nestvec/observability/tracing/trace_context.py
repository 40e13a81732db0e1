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
MAX_STATE_MEMBERS: Final = 32
STATE_MEMBER: Final = re.compile(
    r"([a-z][_0-9a-z\-*/]{0,255}|[a-z0-9][_0-9a-z\-*/]{0,240}@[a-z][_0-9a-z\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


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
        is_sampled = bool(int(match[4], 16) & SAMPLED)
        return cls(match[2].decode(), match[3].decode(), is_sampled, _well_formed(state))

    @property
    def traceparent(self) -> str:
        """The place as a `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{SAMPLED if self.is_sampled else 0:02x}"


def _well_formed(state: bytes) -> str:
    """Return a `tracestate` without spaces around its members; "" for one that is malformed, as a whole.

    OpenTelemetry's own reader logs what it cannot read, which may be any word of a caller's.
    """
    if not state or len(state) > MAX_STATE_BYTES:
        return ""
    members = [member.strip(" \t") for member in state.decode("latin-1").split(",")]
    members = [member for member in members if member]
    matches = [STATE_MEMBER.fullmatch(member) for member in members]
    keys = {match[1] for match in matches if match is not None}
    is_well_formed = len(keys) == len(members) <= MAX_STATE_MEMBERS
    return ",".join(members) if is_well_formed else ""


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
