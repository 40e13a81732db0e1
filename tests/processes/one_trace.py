"""A request whose trace a test knows, and what a server's processes should have exported of it."""

import json
from collections.abc import Sequence
from typing import Final

import httpx

from tests.support.collector import ReceivedSpan
from tests.support.server import RunningServer

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER: Final = "00f067aa0ba902b7"
OF_REQUEST: Final = ("embeddings", "parse", "encode", "write")
OF_CALL: Final = ("tokenize", "queue", "run", "postprocess")
IN_ENGINE: Final = ("queue", "run")
# Of the others a quick machine has none.
ALWAYS: Final = ("POST", "embeddings", "run")


def send_traced(server: RunningServer, key: str, text: str) -> None:
    """Send a request that its caller does not record, then one that it does; neither is in the cache."""
    for flag, word in (("00", "one"), ("01", "two")):
        answer = httpx.post(
            f"{server.url}/v1/embeddings",
            json={"input": [f"{text} {word}", f"{word} {word}"]},
            headers={
                "authorization": f"Bearer {key}",
                "traceparent": f"00-{TRACE}-{CALLER}-{flag}",
                "tracestate": "vendor=1",
            },
        )
        assert answer.status_code == 200


def assert_one_trace(spans: Sequence[ReceivedSpan], http: str, engine: str) -> None:
    """Check that the recorded request is one trace, with the spans of each process, right parents and links.

    Args:
        spans: All that a collector was sent.
        http: Role of the process that serves HTTP.
        engine: Role of the process that runs batches.
    """
    own = [span for span in spans if span.trace_id == TRACE]
    by_name = {span.name.split()[0]: span for span in own}
    assert len(own) == len(by_name), sorted(span.name for span in own)
    processes = {name: span.process for name, span in by_name.items()}
    assert set(ALWAYS) <= processes.keys() <= {"POST", *OF_REQUEST, *OF_CALL}
    assert processes == {name: engine if name in IN_ENGINE else http for name in processes}
    assert {span.state for span in own} == {"vendor=1"}
    request, call = by_name["POST"], by_name["embeddings"]
    assert request.parent_id == CALLER
    _assert_children(by_name, request, *by_name.keys() & set(OF_REQUEST))
    _assert_children(by_name, call, *by_name.keys() & set(OF_CALL))
    ((batch_trace, batch_id),) = by_name["run"].links
    (batch,) = [span for span in spans if span.span_id == batch_id]
    assert (batch.trace_id, batch.parent_id, batch.process) == (batch_trace, "", engine)
    assert batch.trace_id != TRACE
    assert batch.name.startswith("batch ")
    assert batch.links == [(TRACE, call.span_id)]
    assert batch.attributes["nestvec.batch.inputs"] == 2


def assert_logged(server: RunningServer) -> None:
    """Check that the lines of both requests, recorded or not, have the caller's trace."""
    lines = [json.loads(line) for line in server.logs().splitlines()]
    routes = [line.get("route") for line in lines if line.get("trace_id") == TRACE]
    assert routes == ["/v1/embeddings"] * 2


def _assert_children(by_name: dict[str, ReceivedSpan], parent: ReceivedSpan, *names: str) -> None:
    """Check that spans lie under another, and within its time, give or take a step of the clock."""
    for name in names:
        span = by_name[name]
        assert span.parent_id == parent.span_id, name
        assert span.started_ns >= parent.started_ns - 10**7, name
        assert span.ended_ns <= parent.ended_ns + 10**7, name
