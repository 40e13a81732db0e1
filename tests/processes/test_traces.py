"""The spans of one request over the server's processes, as a collector receives them."""

import json
from pathlib import Path

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from tests.support.collector import ReceivedSpan, running_collector
from tests.support.server import running_server
from tests.support.tiny import write_tiny_bert

pytestmark = pytest.mark.process

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
CANARY = "kanarienvogel"


def test_a_request_is_one_trace_over_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP process and engine process export their own spans of it: right parents and links, no text; the log's id."""
    model = write_tiny_bert(tmp_path / "model")
    settings = {"model": model, "cache_dir": tmp_path / "cache", "http_processes": 1}
    settings["vector_cache_bytes"] = 0
    with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        with running_server(tmp_path, **settings) as server:
            for flag in ("00", "01"):
                answer = httpx.post(
                    f"{server.url}/v1/embeddings",
                    json={"input": [f"{CANARY} {flag}", "beta"]},
                    headers={"traceparent": f"00-{TRACE}-{CALLER}-{flag}"},
                )
                assert answer.status_code == 200
            metrics = httpx.get(
                f"{server.url}/metrics", headers={"accept": "application/openmetrics-text"}
            )
            assert server.terminate() == 0
    # A slow machine adds others.
    spans = [span for span in collector.spans() if span.name not in ("parse", "write")]
    by_name = {span.name.split()[0]: span for span in spans}
    assert len(spans) == len(by_name), sorted(span.name for span in spans)
    processes = {name: span.process for name, span in by_name.items()}
    in_http = ("POST", "embeddings", "tokenize", "postprocess", "encode")
    in_engine = ("queue", "run", "batch")
    assert processes == {**dict.fromkeys(in_http, "front-0"), **dict.fromkeys(in_engine, "core")}
    request, call, batch = by_name["POST"], by_name["embeddings"], by_name["batch"]
    assert (request.trace_id, request.parent_id) == (TRACE, CALLER)
    assert_children(by_name, request, "embeddings", "encode")
    assert_children(by_name, call, "tokenize", "queue", "run", "postprocess")
    assert not batch.parent_id
    assert batch.trace_id != TRACE
    assert batch.links == [(TRACE, call.span_id)]
    assert by_name["run"].links == [(batch.trace_id, batch.span_id)]
    assert CANARY.encode() not in b"".join(collector.bodies)
    lines = [json.loads(line) for line in server.logs().splitlines()]
    assert [line["trace_id"] for line in lines if line["event"] == "request"][:2] == [TRACE] * 2
    # Counters in files that processes share keep no exemplars: the library has none there.
    assert TRACE not in metrics.text
    assert metrics.text.endswith("# EOF\n")


def assert_children(by_name: dict[str, ReceivedSpan], parent: ReceivedSpan, *names: str) -> None:
    """Check that spans lie under another, and within its time, give or take a clock's step."""
    for name in names:
        span = by_name[name]
        assert (span.trace_id, span.parent_id) == (parent.trace_id, parent.span_id), name
        assert span.started_ns >= parent.started_ns - 10**7, name
        assert span.ended_ns <= parent.ended_ns + 10**7, name
