"""What /metrics counts: requests, stages, vectors, limits; by labels from closed sets."""

import asyncio
import re

from nestvec.observability.key_metrics import MAX_KEYS, KeyMetrics
from nestvec.observability.metrics import Metrics
from nestvec.processes.connections.refusals import Refusal
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from tests.api.applications import Api, sample, scrape
from tests.support.served import SPEC


async def test_metrics_add_up(api: Api) -> None:
    """Requests, inputs, tokens and truncations are counted exactly as they were sent."""
    await api.embed({"input": ["alpha", "beta gamma"]})
    await api.embed({"input": "alpha " * 40, "truncate": True})
    await api.embed({"input": []})
    await api.embed({"input": "a", "model": "nope"})
    await api.client.get("/nowhere/at/all")
    metrics = await scrape(api)
    model = {"model": SPEC.name}
    embeddings = {"route": "/v1/embeddings", "dialect": "openai"}
    assert metrics[sample("nestvec_requests_total", status="200", **embeddings, **model)] == 2
    assert metrics[sample("nestvec_requests_total", status="400", model="", **embeddings)] == 1
    # No label says what a caller wrote.
    assert metrics[sample("nestvec_requests_total", status="404", model="", **embeddings)] == 1
    for code, count in (("invalid_value", 1), ("model_not_found", 1), ("unknown_url", 1)):
        assert metrics[sample("nestvec_request_errors_total", model="", code=code)] == count
    unmatched = {"route": "unmatched", "dialect": "unmatched", "model": "", "status": "404"}
    assert metrics[sample("nestvec_requests_total", **unmatched)] == 1
    assert metrics[sample("nestvec_inputs_total", **model)] == 3
    assert metrics[sample("nestvec_tokens_total", **model)] == 3 + 4 + 16
    assert metrics[sample("nestvec_truncated_inputs_total", **model)] == 1


async def test_stages_come_to_no_more_than_the_whole(api: Api) -> None:
    """Each stage of a request for vectors is measured once, and named to the caller; others have no stages."""
    answer = await api.embed({"input": ["alpha", "beta gamma"]})
    timing = answer.headers["server-timing"]
    stages = dict(part.split(";dur=") for part in timing.split(", "))
    assert list(stages) == ["parse", "tokenize", "queue", "run", "postprocess", "encode"]
    assert all(float(took_ms) >= 0 for took_ms in stages.values())
    for path in ("/v1/models", "/health"):
        assert "server-timing" not in (await api.client.get(path)).headers
    assert "server-timing" not in (await api.embed({"input": []})).headers
    metrics = await scrape(api)
    name = "nestvec_request_stage_duration_seconds"
    total_s = 0.0
    for stage in (*stages, "write"):
        labels = {"model": SPEC.name, "stage": stage}
        assert metrics[sample(f"{name}_count", **labels)] == 1
        total_s += metrics[sample(f"{name}_sum", **labels)]
    whole = {"route": "/v1/embeddings", "dialect": "openai", "model": SPEC.name, "outcome": "ok"}
    assert total_s <= metrics[sample("nestvec_request_duration_seconds_sum", **whole)]


async def test_what_is_asked_of_vectors_is_counted(api: Api) -> None:
    """Dimensions by those that the model was trained for, dtypes each, prompts by their names."""
    await api.embed({"input": ["alpha", "beta"]})
    await api.embed({"input": "alpha", "dimensions": 4, "output_dtype": "int8"})
    await api.embed({"input": "alpha", "dimensions": 3})
    await api.embed({"input": "alpha", "prompt": "my own: "})
    metrics = await scrape(api)
    whole = {"model": SPEC.name, "layers": "all", "map": "no"}
    for dimensions, dtype, count in (
        ("8", "float32", 3),
        ("4", "int8", 1),
        ("other", "float32", 1),
    ):
        key = sample("nestvec_vectors_total", dimensions=dimensions, dtype=dtype, **whole)
        assert metrics[key] == count
    literal = sample("nestvec_prompted_vectors_total", model=SPEC.name, prompt="literal")
    assert metrics[literal] == 1


async def test_each_use_has_its_limit_beside_it(api: Api) -> None:
    """So that how full a server is can be written as one over the other."""
    metrics = await scrape(api)
    model = {"model": SPEC.name}
    for name, labels in (
        ("nestvec_workers", model),
        ("nestvec_queue_limit_tokens", model),
        ("nestvec_connections_limit", {}),
        ("nestvec_in_flight_body_limit_bytes", {}),
    ):
        assert metrics[sample(name, **labels)] > 0, name


async def test_metrics_in_openmetrics_on_request(api: Api) -> None:
    """Metrics come in OpenMetrics where `Accept` asks for it, as Prometheus does."""
    answer = await api.client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


async def test_durations_have_the_last_recorded_trace_as_exemplar(api: Api) -> None:
    """In OpenMetrics only, and only a trace that somebody keeps: its caller says so, where none are recorded here."""
    openmetrics = {"accept": "application/openmetrics-text"}
    unkept, kept = "ab" * 16, "cd" * 16
    await api.embed({"input": "alpha"})
    await api.embed({"input": "alpha"}, traceparent=f"00-{unkept}-{'ef' * 8}-00")
    await api.embed({"input": "alpha"}, traceparent="00-nonsense-01")
    assert "trace_id" not in (await api.client.get("/metrics", headers=openmetrics)).text
    await api.embed({"input": "alpha"}, traceparent=f"00-{kept}-{'ef' * 8}-01")
    text = (await api.client.get("/metrics", headers=openmetrics)).text
    exemplar = f'# {{trace_id="{kept}"}}'
    names = {line.split("{")[0] for line in text.splitlines() if exemplar in line}
    assert names == {
        "nestvec_request_duration_seconds_bucket",
        "nestvec_request_stage_duration_seconds_bucket",
    }
    assert unkept not in text
    assert "trace_id" not in (await api.client.get("/metrics")).text


async def test_metric_names_follow_the_rules(api: Api) -> None:
    """Names have a prefix and base units, every metric has a help text, and buckets begin at 0.5 ms."""
    text = (await api.client.get("/metrics")).text
    for family in text_string_to_metric_families(text):
        assert family.name.startswith(("nestvec_", "process_"))
        assert not re.search(r"_(ms|milliseconds|percent|kb)$", family.name)
        assert family.documentation
        if family.name.startswith("nestvec_") and family.type == "histogram":
            assert family.name.endswith(("_seconds", "_tokens", "_inputs", "_ratio"))
    assert 'nestvec_queue_wait_seconds_bucket{le="0.0005"' in text
    assert 'nestvec_queue_wait_seconds_bucket{le="30.0"' in text


async def test_what_operators_ask_for_is_no_traffic(api: Api) -> None:
    """Health checks, scrapes and pages are counted by themselves, whichever dialect has a name for them."""
    asked = ("/health", "/health/live", "/ping", "/v2/health/ready", "/metrics", "/docs", "/")
    for path in (*asked, "/v1/models", "/nowhere"):
        await api.client.get(path)
    metrics = await scrape(api)
    for path in asked:
        key = sample("nestvec_operations_requests_total", route=path, status="200")
        assert metrics[key] == 1, path
    for name in ("nestvec_requests_total", "nestvec_request_duration_seconds_count"):
        counted = {key: value for key, value in metrics.items() if key.startswith(name)}
        assert sum(counted.values()) == 2, counted
        assert all("/v1/models" in key or "unmatched" in key for key in counted)


async def test_requests_have_sizes(api: Api) -> None:
    """How many inputs and tokens a request brings, as it was answered."""
    await api.embed({"input": ["alpha", "beta gamma"]})
    await api.embed({"input": "alpha"})
    metrics = await scrape(api)
    model = {"model": SPEC.name}
    for name, whole in (("nestvec_request_inputs", 3), ("nestvec_request_tokens", 3 + 4 + 3)):
        assert metrics[sample(f"{name}_count", **model)] == 2
        assert metrics[sample(f"{name}_sum", **model)] == whole


async def test_queues_are_looked_at_when_they_are_asked_for(api: Api) -> None:
    """Ages grow while nothing happens; a model that is unloaded has no queue and can do nothing."""
    metrics: Metrics = api.app.state.metrics
    slot = api.served.service.models.all()[0]
    model = slot.model
    metrics.queues.watch(api.served.service.models.loaded)
    for priority in ("interactive", "bulk"):
        key = sample("nestvec_queue_oldest_seconds", model=SPEC.name, priority=priority)
        assert (await scrape(api))[key] == 0
    api.served.backend.gate.clear()
    runs = asyncio.create_task(api.embed({"input": "alpha"}))
    await asyncio.to_thread(api.served.backend.started.acquire)
    waits = asyncio.create_task(api.embed({"input": "beta"}))
    key = sample("nestvec_queue_oldest_seconds", model=SPEC.name, priority="interactive")
    async with asyncio.timeout(10):
        while not (await scrape(api))[key]:
            await asyncio.sleep(0.01)
    api.served.backend.gate.set()
    await asyncio.gather(runs, waits)
    capacity = sample("nestvec_capacity_tokens_per_second", model=SPEC.name)
    async with asyncio.timeout(10):
        while not (await scrape(api)).get(capacity):
            await asyncio.sleep(0.01)
    slot.model = None
    assert (await scrape(api))[capacity] == 0
    slot.model = model


def test_keys_beyond_a_thousand_share_a_series() -> None:
    """However many keys an operator makes, those that came first keep their own."""
    keys = KeyMetrics(CollectorRegistry())
    labels = [keys.label_of(f"key-{number}") for number in range(MAX_KEYS + 2)]
    assert labels[:MAX_KEYS] == [f"key-{number}" for number in range(MAX_KEYS)]
    assert labels[MAX_KEYS:] == ["other", "other"]
    assert keys.label_of("key-0") == "key-0"


async def test_closed_connections_are_counted_from_zero_on(api: Api) -> None:
    """A rate sees no rise to the first value of a series that was not there before."""
    metrics = await scrape(api)
    reasons = {refusal.value.reason for refusal in Refusal} | {"silent", "slow_reader"}
    for reason in reasons:
        assert metrics[sample("nestvec_refused_connections_total", reason=reason)] == 0
