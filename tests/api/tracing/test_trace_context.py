"""W3C trace context as it comes in headers, and as a process inherits it."""

import pytest
from nestvec.observability.tracing.batch_spans import call_word, place_of
from nestvec.observability.tracing.trace_context import TraceContext, inherited_headers

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def context_of(*headers: tuple[str, str]) -> TraceContext | None:
    """Read headers."""
    return TraceContext.of_headers([(name.encode(), value.encode()) for name, value in headers])


@pytest.mark.parametrize(
    ("value", "is_sampled"),
    [
        (PARENT, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f" {PARENT}\t", True),
        # Of a version to come: more flags, more fields.
        (f"cc-{TRACE}-{SPAN}-09-what-the-future-holds", True),
        (f"01-{TRACE}-{SPAN}-02", False),
    ],
)
def test_what_is_well_formed_is_read(value: str, *, is_sampled: bool) -> None:
    """Trace, span and the flag, of this version and of later ones."""
    assert context_of(("traceparent", value)) == TraceContext(TRACE, SPAN, is_sampled)


@pytest.mark.parametrize(
    "value",
    [
        *("", "x", TRACE, f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-1", f"{PARENT}-more"),
        *(f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01"),
        *(PARENT.upper(), PARENT.replace("-", "_"), f"{PARENT}\n", f"00-{TRACE}ff-{SPAN}-01"),
        *(f"00-{TRACE[:-1]}g-{SPAN}-01", f"00-{TRACE}-{SPAN}-01" * 2, "é" * 55),
    ],
)
def test_what_is_malformed_is_no_context(value: str) -> None:
    """A new trace begins, as the specification has it."""
    assert context_of(("traceparent", value), ("tracestate", "a=b")) is None


def test_state_comes_along() -> None:
    """All headers of it, in order; not one that is longer than others must take, nor one without a parent."""
    parent = ("traceparent", PARENT)
    context = context_of(("tracestate", "a=1"), parent, ("tracestate", "b=2"))
    assert context == TraceContext(TRACE, SPAN, True, "a=1,b=2")  # noqa: FBT003 - the field's value
    assert context_of(parent, ("tracestate", "a=" + "x" * 600)) == context._replace(state="")
    assert context_of(("tracestate", "a=1")) is None


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ("a=1, b=2 ,,c=x y", "a=1,b=2,c=x y"),
        ("tenant@system=1,a-_*/9=~!", "tenant@system=1,a-_*/9=~!"),
        *((malformed, "") for malformed in ("my secret", "a=1,my secret", "A=1", "a=b=c", "=1")),
        *((malformed, "") for malformed in ("a=", "a=\x01", "a=é", "a=1\n", "a@B=1", "9=1")),
        # Not twice the same, no more than 32.
        ("a=1,a=2", ""),
        (",".join(f"k{number}=1" for number in range(32)),) * 2,
        (",".join(f"k{number}=1" for number in range(33)), ""),
    ],
)
def test_malformed_state_is_left_out(state: str, kept: str) -> None:
    """All of it, and the trace goes on: others would log what they cannot read of it."""
    context = context_of(("traceparent", PARENT), ("tracestate", state))
    assert context is not None
    assert (context.trace_id, context.state) == (TRACE, kept)


def test_two_parents_are_none() -> None:
    """Which of them is meant cannot be known."""
    assert context_of(("traceparent", PARENT), ("traceparent", PARENT)) is None


@pytest.mark.parametrize("state", ["", "a=1,b=2"])
def test_a_place_survives_the_engine(state: str) -> None:
    """The word that travels with a call's items is read again as what it was."""
    place = TraceContext(TRACE, SPAN, True, state)  # noqa: FBT003 - the field's value
    assert place_of(call_word(place)) == place
    assert place_of("another observer's word") is None


def test_requests_belong_to_the_trace_that_a_process_was_started_in() -> None:
    """`TRACEPARENT` goes on as it came, where it is well-formed."""
    environment = {"TRACEPARENT": PARENT, "TRACESTATE": "a=1"}
    assert inherited_headers(environment) == {"traceparent": PARENT, "tracestate": "a=1"}
    assert inherited_headers({"TRACEPARENT": PARENT}) == {"traceparent": PARENT}
    assert inherited_headers({"TRACEPARENT": "nonsense", "TRACESTATE": "a=1"}) == {}
    assert inherited_headers({}) == {}
