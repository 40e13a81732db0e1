"""A request's line in the log: what an operator asks of it, and no word of a caller's."""

from typing import Any

import pytest
import structlog
from nestvec.api.state import Phase
from structlog.testing import capture_logs

from tests.api.applications import Api, MakeApi
from tests.support.served import SPEC, ServedOptions

KEY = "a-key-of-sixteen-chars"


async def lines(api: Api, *bodies: dict[str, Any], **headers: str) -> list[dict[str, Any]]:
    """Send requests for vectors one after the other; returns their lines."""
    with capture_logs() as logs:
        for body in bodies:
            await api.client.post("/v1/embeddings", json=body, headers=headers)
    return [dict(line) for line in logs if line["event"] == "request"]


async def test_a_line_says_what_was_asked_and_where_the_time_went(make_api: MakeApi) -> None:
    """Route, dialect, model, key, inputs, tokens, and every stage to the last byte."""
    api = make_api(api_keys=[KEY])
    (line,) = await lines(api, {"input": ["alpha", "beta gamma"]}, authorization=f"Bearer {KEY}")
    assert line["route"] == "/v1/embeddings"
    assert (line["status"], line["dialect"], line["model"]) == (200, "openai", SPEC.name)
    assert (line["inputs"], line["tokens"]) == (2, 7)
    assert line["key_id"]
    assert KEY not in str(line)
    stages = ["parse", "tokenize", "queue", "run", "postprocess", "encode", "write"]
    assert list(line["stages_ms"]) == stages
    assert sum(line["stages_ms"].values()) <= line["duration_ms"] + 0.1


@pytest.mark.parametrize(
    ("parent", "trace_id"),
    [
        (
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "4bf92f3577b34da6a3ce929d0e0e4736",
        ),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None),
        ("my secret", None),
        ("", None),
    ],
)
async def test_a_line_has_the_callers_trace(api: Api, parent: str, trace_id: str | None) -> None:
    """Without any tracing here; what is malformed is no trace, and no word of it gets in."""
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        await api.embed({"input": "alpha"}, traceparent=parent)
    (line,) = [line for line in logs if line["event"] == "request"]
    assert line.get("trace_id") == trace_id
    assert "secret" not in str(logs)


async def test_a_refusal_says_why(make_api: MakeApi) -> None:
    """The error's code, the field and the input's index."""
    api = make_api()
    wrong, long, unknown = await lines(
        api,
        {"input": "alpha", "dimensions": -1},
        {"input": ["alpha", "alpha " * 40]},
        {"input": "alpha", "model": "gpt-4"},
    )
    assert (wrong["status"], wrong["code"], wrong["param"]) == (400, "invalid_value", "dimensions")
    assert (long["status"], long["param"], long["input_index"]) == (400, "input", 1)
    assert (unknown["status"], unknown["code"], unknown["model"]) == (404, "model_not_found", "")


async def test_no_word_of_a_caller_gets_in(make_api: MakeApi) -> None:
    """The name of an unknown field is one, and so is a path that leads nowhere."""
    api = make_api(reject_unknown_fields=True)
    (line,) = await lines(api, {"input": "alpha", "my secret field": 1})
    assert line["status"] == 400
    with capture_logs() as logs:
        await api.client.get("/my/secret/path")
    assert "secret" not in f"{line} {logs}"
    assert "gpt-4" not in str(await lines(api, {"input": "a", "model": "gpt-4"}))


async def test_of_quick_and_good_answers_a_share_is_logged(make_api: MakeApi) -> None:
    """All others get their line: refused ones, and slow ones."""
    api = make_api(access_log_sample_ratio=0.25)
    good: dict[str, Any] = {"input": "alpha"}
    bad: dict[str, Any] = {"input": []}
    found = await lines(api, *[good, bad] * 8)
    assert [line["status"] for line in found].count(200) == 2
    assert [line["status"] for line in found].count(400) == 8
    slow = make_api(access_log_sample_ratio=0.0, slow_request_ms=0)
    assert len(await lines(slow, good, good)) == 2
    none = make_api(access_log_sample_ratio=0.0, slow_request_ms=60_000)
    assert await lines(none, good, good) == []


@pytest.mark.parametrize("path", ["/health", "/metrics"])
async def test_probes_and_scrapes_are_quiet(make_api: MakeApi, path: str) -> None:
    """They come every few seconds: a line each at level debug."""
    api = make_api(ServedOptions())
    with capture_logs() as logs:
        await api.client.get(path)
        api.app.state.set_phase(Phase.FAILED)
        await api.client.get("/health/ready")
    levels = [line["log_level"] for line in logs if line["event"] == "request"]
    assert levels == ["debug", "debug"]
