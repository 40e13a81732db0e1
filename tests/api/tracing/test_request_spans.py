"""The spans of requests over a fake backend: names, parents, links, attributes, and no word of a caller's."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from nestvec.api.requests.embedding import forms_asked_for
from nestvec.engine.types import Batch, RawOutput
from nestvec.observability.tracing import finished_span
from structlog.testing import capture_logs

from tests.api.applications import Api, Jobs, MakeApi
from tests.support.served import SPEC, ServedOptions

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from nestvec.observability.tracing.batch_spans import BatchSpans
from nestvec.observability.tracing.span_recorder import SpanRecorder
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanKind, StatusCode

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
SERVER = "POST /v1/embeddings"
CALL = f"embeddings {SPEC.name}"
# By the name of the fake core.
BATCH = "batch fake"
STAGES = ("parse", "tokenize", "queue", "run", "postprocess", "encode", "write")
CANARY = "kanarienvogel"
KEY = "a-key-of-sixteen-chars"


@dataclass
class Spans:
    """What was recorded."""

    exporter: InMemorySpanExporter

    def all(self) -> Sequence[ReadableSpan]:
        """Return every span that has ended."""
        return self.exporter.get_finished_spans()

    def one(self, name: str) -> ReadableSpan:
        """Return the only span of a name."""
        (span,) = [span for span in self.all() if span.name == name]
        return span

    def names(self) -> list[str]:
        """Return the names of all, sorted."""
        return sorted(span.name for span in self.all())


@pytest.fixture(autouse=True)
def _every_stage_has_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast this machine is."""
    monkeypatch.setattr(finished_span, "MIN_STAGE_S", 0.0)


def record(api: Api, sampler: Sampler = ALWAYS_ON) -> Spans:
    """Record an application's spans."""
    exporter = InMemorySpanExporter()
    export = SimpleSpanProcessor(exporter).on_end
    recorder = SpanRecorder(sampler, Resource({}), export, lambda: None)
    api.app.state.recorder = recorder
    api.app.state.metrics.engine.record_batch = BatchSpans(recorder).record
    return Spans(exporter)


def is_under(span: ReadableSpan, parent: ReadableSpan) -> bool:
    """Whether a span is a child of another, in time too."""
    assert span.parent is not None
    assert span.context.trace_id == parent.context.trace_id
    assert parent.start_time is not None
    assert span.start_time is not None
    return span.parent.span_id == parent.context.span_id and parent.start_time <= span.start_time


async def test_a_request_is_recorded_in_its_stages(api: Api) -> None:
    """The request, its call, queue and run, the micro-batch that is linked to the call both ways."""
    spans = record(api)
    answer = await api.embed({"input": ["alpha", "beta"], "encoding_format": "base64"}, **SAMPLED)
    assert answer.status_code == 200
    assert spans.names() == sorted([SERVER, BATCH, *STAGES, CALL])
    server, call, batch = spans.one(SERVER), spans.one(CALL), spans.one(BATCH)
    assert f"{server.context.trace_id:032x}" == TRACE
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == CALLER
    assert (server.kind, call.kind) == (SpanKind.SERVER, SpanKind.INTERNAL)
    assert all(is_under(spans.one(stage), server) for stage in ("parse", "encode", "write"))
    assert is_under(call, server)
    of_call = ("tokenize", "queue", "run", "postprocess")
    assert all(is_under(spans.one(stage), call) for stage in of_call)
    assert batch.parent is None
    assert batch.context.trace_id != server.context.trace_id
    assert [link.context.span_id for link in batch.links] == [call.context.span_id]
    assert [link.context.span_id for link in spans.one("run").links] == [batch.context.span_id]
    assert all(span.end_time >= span.start_time for span in spans.all())  # type: ignore[operator]


async def test_short_stages_have_no_spans(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """But the run, which is linked to its micro-batch; the log line has the time of each."""
    monkeypatch.setattr(finished_span, "MIN_STAGE_S", float("inf"))
    spans = record(api)
    with capture_logs() as logs:
        await api.embed({"input": "alpha"})
    assert spans.names() == sorted([SERVER, CALL, "run", BATCH])
    batch_id = spans.one(BATCH).context.span_id
    assert [link.context.span_id for link in spans.one("run").links] == [batch_id]
    assert [list(line["stages_ms"]) for line in logs if "stages_ms" in line] == [list(STAGES)]


async def test_attributes_are_those_of_the_conventions(api: Api) -> None:
    """HTTP's and GenAI's names, and a few of ours."""
    spans = record(api)
    await api.embed({"input": ["alpha", "beta"], "encoding_format": "base64", "dimensions": 4})
    assert spans.one(SERVER).attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/embeddings",
        "http.response.status_code": 200,
        "url.path": "/v1/embeddings",
        "url.scheme": "http",
        "nestvec.dialect": "openai",
    }
    assert spans.one(CALL).attributes == {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "nestvec",
        "gen_ai.request.model": SPEC.name,
        "gen_ai.response.model": SPEC.name,
        "gen_ai.request.encoding_formats": ("base64",),
        "gen_ai.embeddings.dimension.count": 4,
        "gen_ai.usage.input_tokens": 6,
        "nestvec.inputs": 2,
    }
    batch = spans.one(BATCH).attributes
    assert batch == {"nestvec.batch.inputs": 2, "nestvec.batch.tokens": 6}


@pytest.mark.parametrize(
    ("body", "forms"),
    [
        ({"encoding_format": "float"}, ["float"]),
        ({"embedding_types": ["int8", "binary"]}, ["int8", "binary"]),
        ({"embedding_types": ["kanarienvogel", 7, None], "encoding_format": {"a": 1}}, []),
        ({}, []),
    ],
)
def test_only_known_forms_are_told(body: dict[str, Any], forms: list[str]) -> None:
    """A caller's own word is none."""
    assert forms_asked_for(body) == forms


async def test_a_batch_is_linked_to_each_of_its_requests(api: Api) -> None:
    """Calls that run together have one micro-batch between them; one that is not recorded is not linked."""
    spans = record(api, ParentBased(ALWAYS_OFF))
    api.served.backend.gate.clear()
    waiting = [asyncio.ensure_future(api.embed({"input": "alpha"}))]
    await asyncio.to_thread(api.served.backend.started.acquire)
    other = {"traceparent": SAMPLED["traceparent"].replace("4b", "ab")}
    for text, headers in (("beta", SAMPLED), ("gamma", other), ("delta", UNSAMPLED)):
        waiting.append(asyncio.ensure_future(api.embed({"input": text}, **headers)))
    async with asyncio.timeout(10):
        while api.served.observer.queue[0] < 3:
            await asyncio.sleep(0.005)
    api.served.backend.gate.set()
    await asyncio.gather(*waiting)
    batch = spans.one(BATCH)
    calls = [span.context for span in spans.all() if span.name == CALL]
    runs = [span for span in spans.all() if span.name == "run"]
    assert batch.attributes is not None
    assert batch.attributes["nestvec.batch.inputs"] == 3
    assert len({call.trace_id for call in calls}) == len(calls) == len(runs) == 2
    linked = {(link.context.trace_id, link.context.span_id) for link in batch.links}
    assert linked == {(call.trace_id, call.span_id) for call in calls}
    for run in runs:
        assert [link.context.span_id for link in run.links] == [batch.context.span_id]


async def test_the_sampler_decides_where_a_trace_begins(api: Api) -> None:
    """At ratio 0 only what a caller records is recorded; probes and scrapes begin no trace."""
    spans = record(api, ParentBased(TraceIdRatioBased(0)))
    await api.embed({"input": "alpha"})
    await api.embed({"input": "alpha"}, **UNSAMPLED)
    await api.embed({"input": "alpha"}, traceparent="00-nonsense-01")
    assert spans.names() == []
    await api.embed({"input": "alpha"}, **SAMPLED, tracestate="vendor=1")
    assert SERVER in spans.names()
    states = {span.context.trace_state.get("vendor") for span in spans.all() if span.parent}
    assert states == {"1"}
    everything = record(api)
    for path in ("/health", "/health/ready", "/metrics"):
        await api.client.get(path)
    assert everything.names() == []


async def test_a_refusal_is_told_by_its_code(api: Api) -> None:
    """A caller's mistake is no error of the server's; the code is there, and no message."""
    spans = record(api)
    await api.embed({"input": ["alpha", "alpha " * 40]})
    server, call = spans.one(SERVER), spans.one(CALL)
    assert server.attributes is not None
    assert call.attributes is not None
    assert server.attributes["http.response.status_code"] == 400
    assert server.attributes["error.type"] == call.attributes["error.type"]
    assert server.status.status_code is StatusCode.UNSET
    assert call.status.status_code is StatusCode.ERROR
    assert {span.status.description for span in spans.all()} == {None}
    assert not any(span.events for span in spans.all())


async def test_a_fault_is_an_error(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the request, the call, the run and the micro-batch; the runtime's message is in none of them."""

    def fail(_: Batch) -> RawOutput:
        raise RuntimeError("secret text of a caller")

    monkeypatch.setattr(api.served.backend, "run", fail)
    spans = record(api)
    assert (await api.embed({"input": "alpha"})).status_code == 500
    for name in (SERVER, CALL, "run", BATCH):
        assert spans.one(name).status.status_code is StatusCode.ERROR, name
    attributes = spans.one(SERVER).attributes
    assert attributes is not None
    assert attributes["error.type"] == "backend_error"
    assert "secret" not in "".join(span.to_json() for span in spans.all())


async def test_paths_with_words_of_callers_are_told_by_their_route(api: Api) -> None:
    """What no route is for has no path; HEAD is HEAD."""
    spans = record(api)
    await api.client.get(f"/{CANARY}?{CANARY}={CANARY}")
    await api.client.get(f"/v1/models/{CANARY}?{CANARY}={CANARY}")
    await api.client.head("/v1/models")
    assert spans.names() == ["GET", "GET /v1/models/{model:path}", "HEAD /v1/models"]
    assert CANARY not in str([span.to_json() for span in spans.all()])


async def test_no_text_vector_or_key_is_in_a_span(make_api: MakeApi) -> None:
    """Whatever is asked for, and whether it is answered or refused."""
    api = make_api(ServedOptions(), api_keys=[KEY])
    spans = record(api)
    auth = {"authorization": f"Bearer {KEY}"}
    vectors = []
    for body in (
        {"input": CANARY, "user": CANARY},
        {"input": [CANARY, f"{CANARY} " * 40]},
        {"input": "alpha", "encoding_format": CANARY},
        {"input": "alpha", "model": CANARY},
        {"input": "alpha", "prompt": CANARY, CANARY: CANARY},
        {"input": "alpha", "prompt_name": CANARY},
    ):
        answer = await api.embed(body, **auth, baggage=f"text={CANARY}", user_agent=CANARY)
        if answer.is_success:
            vectors += [str(value) for value in answer.json()["data"][0]["embedding"]]
    await api.embed({"input": CANARY}, authorization=f"Bearer {CANARY}")
    told = "".join(span.to_json() for span in spans.all())
    assert len([span for span in spans.all() if span.name == SERVER]) == 7
    assert vectors
    assert not [word for word in (CANARY, KEY, *vectors) if word in told]


async def test_chunks_of_batches_are_recorded(jobs: Jobs) -> None:
    """A chunk is a trace, with the calls that its lines are run in."""
    spans = record(jobs.api)
    lines = [
        b'{"custom_id": "%d", "method": "POST", "url": "/v1/embeddings", "body": {"input": "%s"}}'
        % (number, text)
        for number, text in enumerate((b"alpha", b"beta", CANARY.encode()))
    ]
    batch = await jobs.create(b"\n".join(lines))
    await jobs.until(batch["id"])
    chunk, call = spans.one("batch chunk"), spans.one(CALL)
    assert chunk.attributes == {"nestvec.lines": 3}
    assert is_under(call, chunk)
    assert is_under(spans.one("run"), call)
    assert CANARY not in "".join(span.to_json() for span in spans.all())


async def test_fastapi_adds_none_of_its_own(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where a program has set a provider for all: its spans hold paths and query strings."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    await api.client.get(f"/v1/models?{CANARY}={CANARY}")
    assert not exporter.get_finished_spans()
