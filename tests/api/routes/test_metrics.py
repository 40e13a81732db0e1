"""What /metrics counts: requests, stages, vectors, limits; by labels from closed sets."""

import re

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
    whole = {"route": "/v1/embeddings", "model": SPEC.name, "outcome": "ok"}
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
