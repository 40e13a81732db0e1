"""Keys, health, errors, headers, disconnects and capacity over HTTP."""

import asyncio
import dataclasses
import re
from typing import Any

import httpx
import pytest
from nestvec.api.state import Phase
from nestvec.config.settings import Settings
from nestvec.errors import InternalError
from nestvec.main import build_app

from tests.api.applications import Api, MakeApi, sample, scrape
from tests.support.fakes import BAD_ID, NAN_ID
from tests.support.served import SPEC, ServedOptions

KEYS = {"api_keys": "secret-one,secret-two,ключ"}


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer secret-one"},
        {"authorization": "bearer  secret-two"},
        {"api-key": "secret-one"},
        {"x-api-key": "secret-two"},
        {"x-api-key": "ключ".encode()},
    ],
    ids=repr,
)
async def test_keys_are_accepted_in_every_clients_header(
    make_api: MakeApi, headers: dict[str, Any]
) -> None:
    """A key is read from every header that a client sends it in; "Bearer" in upper or lower case."""
    api = make_api(**KEYS)
    answer = await api.client.post("/v1/embeddings", json={"input": "a"}, headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"authorization": "Bearer "}, "missing_api_key"),
        ({"authorization": "Basic secret-one"}, "missing_api_key"),
        ({"authorization": "Bearer secret-on"}, "invalid_api_key"),
        ({"authorization": "Bearer secret-one,secret-two"}, "invalid_api_key"),
        ({"api-key": b"na\xc3\xafve"}, "invalid_api_key"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/models", "/v1/models/x"])
async def test_wrong_keys_are_401(
    make_api: MakeApi, headers: dict[str, Any], code: str, path: str
) -> None:
    """Every route of the API refuses a wrong key, with a JSON body that does not repeat the key."""
    api = make_api(**KEYS)
    method = "POST" if path == "/v1/embeddings" else "GET"
    answer = await api.client.request(method, path, content=b"not even json", headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (
        401,
        code,
        "invalid_request_error",
    )
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "secret" not in answer.text


async def test_without_keys_any_key_is_accepted(api: Api) -> None:
    """A server without keys accepts any key, as SDKs insist on sending one."""
    assert (await api.embed({"input": "a"}, authorization="Bearer whatever")).status_code == 200


async def test_operations_stay_open_unless_protected(make_api: MakeApi) -> None:
    """Metrics and docs need no key by default, and health checks never need one."""
    paths = ("/metrics", "/docs", "/openapi.json")
    open_api = make_api(**KEYS)
    assert [(await open_api.client.get(p)).status_code for p in paths] == [200, 200, 200]
    closed = make_api(**KEYS, protect_operations=True)
    assert [(await closed.client.get(p)).status_code for p in paths] == [401, 404, 404]
    assert (await closed.client.get("/health/ready")).status_code == 200


@pytest.mark.parametrize(
    ("phase", "status"),
    [(Phase.LOADING, 503), (Phase.READY, 200), (Phase.DRAINING, 503), (Phase.FAILED, 503)],
)
async def test_readiness_follows_the_phase(api: Api, phase: Phase, status: int) -> None:
    """Readiness follows the phase, and liveness does not."""
    api.app.state.set_phase(phase)
    for path in ("/health/ready", "/health"):
        answer = await api.client.get(path)
        tei = {} if status == 200 else {"error": "unhealthy", "error_type": "Unhealthy"}
        assert (answer.status_code, answer.json()) == (status, {"status": phase, **tei})
    assert (await api.client.get("/health/live")).status_code == 200
    assert f"nestvec_ready {float(phase is Phase.READY)}" in (await api.client.get("/metrics")).text


async def test_while_loading_requests_get_503() -> None:
    """While the model is loading, requests get 503 with a time after which to retry."""
    app = build_app(Settings())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://s") as client:
        for answer in (
            await client.post("/v1/embeddings", json={"input": "a"}),
            await client.get("/v1/models"),
        ):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
            assert answer.json()["error"]["type"] == "server_error"
        assert (await client.get("/")).status_code == 503


async def test_while_draining_requests_are_still_answered(api: Api) -> None:
    """While the server drains it answers until the port closes, as load balancers need time to notice."""
    api.app.state.set_phase(Phase.DRAINING)
    assert (await api.embed({"input": "a"})).status_code == 200


async def test_the_front_page(api: Api) -> None:
    """The front page is HTML for browsers, and the line that Ollama's clients look for."""
    page = await api.client.get("/", headers={"accept": "text/html"})
    assert SPEC.name in page.text
    assert (await api.client.get("/")).text == "Ollama is running"
    assert (await api.client.head("/")).status_code == 200


async def test_the_front_page_tells_what_was_measured(make_api: MakeApi) -> None:
    """The front page shows what the quality report recommends, escaped, unless callers need a key."""
    quality = {"recommendations": [{"budget": 0.01, "text": "At most 1% loss: <64> dimensions"}]}
    for keys in ([], ["a-key-of-sixteen-chars"]):
        api = make_api(api_keys=keys)
        slot = api.served.service.models.all()[0]
        assert slot.model is not None
        slot.model = dataclasses.replace(slot.model, quality=quality)
        page = (await api.client.get("/", headers={"accept": "text/html"})).text
        assert ("At most 1% loss: &lt;64&gt; dimensions" in page) == (not keys)


@pytest.mark.parametrize(
    ("request_id", "is_kept"),
    [
        ("abc-1:2.3_X", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("has space", False),
        ("", False),
    ],
)
async def test_request_ids_are_echoed_or_made(
    api: Api,
    request_id: str,
    is_kept: bool,  # noqa: FBT001 - a case
) -> None:
    """Sane request ids are echoed and others replaced; errors carry one too."""
    for path in ("/v1/models", "/nowhere"):
        answer = await api.client.get(path, headers={"x-request-id": request_id})
        answered_id = answer.headers["x-request-id"]
        assert (answered_id == request_id) is is_kept
        assert is_kept or re.fullmatch("req_[0-9a-f]{32}", answered_id)
        assert answer.headers["request-id"] == answered_id


@pytest.mark.parametrize(
    ("method", "path", "status", "hint"),
    [
        ("GET", "/v1/nothing", 404, ""),
        ("POST", "/v3/embed", 404, ". Did you mean POST /v2/embed?"),
        ("GET", "/v1/embeddings", 405, ". Did you mean POST /v1/embeddings?"),
        ("DELETE", "/v1/models", 405, ". Did you mean GET /v1/models?"),
    ],
)
async def test_unknown_urls_have_openais_shape(
    api: Api, method: str, path: str, status: int, hint: str
) -> None:
    """Unknown paths and methods have OpenAI's error, which names what was meant, or which methods are allowed."""
    answer = await api.client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["message"] == f"Invalid URL ({method} {path}){hint}"
    assert ("allow" in answer.headers) is (status == 405)


@pytest.mark.parametrize(
    ("poison", "code", "retry"),
    [(BAD_ID, "backend_error", None), (NAN_ID, "degenerate_vector", "false")],
)
async def test_a_poisoned_input_fails_alone_and_quietly(
    make_api: MakeApi, capsys: pytest.CaptureFixture[str], poison: int, code: str, retry: str | None
) -> None:
    """A bad input fails alone, with index and request id; the runtime's message, which may quote texts, is hidden."""
    spec = dataclasses.replace(SPEC, vocabulary_size=1000)
    api = make_api(ServedOptions(spec=spec), token_input="model")
    good, bad = await asyncio.gather(
        api.embed({"input": "alpha"}), api.embed({"input": [[5], [poison]]}, x_request_id="my-id")
    )
    error = bad.json()["error"]
    assert good.status_code == 200
    assert (bad.status_code, error["code"], error["param"]) == (500, code, "input[1]")
    assert "my-id" in error["message"]
    assert bad.headers.get("x-should-retry") == retry
    shown = capsys.readouterr()
    assert "secret text" not in bad.text + shown.out + shown.err


async def test_a_crash_is_a_plain_500(
    api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A crash is answered with 500 and a request id, without its message, and is counted."""

    def crash(*_: Any) -> None:
        raise ValueError("quotes the text")

    monkeypatch.setattr("nestvec.api.dialects.openai.parse_call", crash)
    answer = await api.embed({"input": "alpha"})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == InternalError.code
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
    shown = capsys.readouterr()
    assert "quotes the text" not in answer.text + shown.out + shown.err
    metrics = await scrape(api)
    assert (
        metrics[
            sample(
                "nestvec_requests_total",
                route="/v1/embeddings",
                dialect="openai",
                model="",
                status="500",
            )
        ]
        == 1
    )


async def test_a_full_queue_is_429_with_retry_after(make_api: MakeApi) -> None:
    """A full queue is 429 with a time to retry after, and requests are served again afterwards."""
    api = make_api(ServedOptions(max_queue_tokens=4))
    api.served.backend.gate.clear()
    running = asyncio.create_task(api.embed({"input": "alpha"}))
    await asyncio.to_thread(api.served.backend.started.acquire)
    queued = asyncio.create_task(api.embed({"input": "alpha"}))
    await asyncio.sleep(0.05)
    refused = await api.embed({"input": "alpha"})
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 120
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    api.served.backend.gate.set()
    assert [(await task).status_code for task in (running, queued)] == [200, 200]


@pytest.mark.parametrize("header", ["x-request-timeout-ms", "x-stainless-read-timeout"])
async def test_deadlines_from_headers(api: Api, header: str) -> None:
    """A deadline in a header ends the request with 504 in time."""
    api.served.backend.gate.clear()
    blocker = asyncio.create_task(api.embed({"input": "alpha"}))
    await asyncio.to_thread(api.served.backend.started.acquire)
    value = "50" if header == "x-request-timeout-ms" else "2.05"
    late = await api.client.post("/v1/embeddings", json={"input": "a"}, headers={header: value})
    assert late.status_code == 504
    assert late.json()["error"]["code"] == "deadline_exceeded"
    api.served.backend.gate.set()
    assert (await blocker).status_code == 200


@pytest.mark.parametrize("value", ["0", "-5", "soon", "nan", "inf"])
async def test_wrong_timeouts_are_400(api: Api, value: str) -> None:
    """A timeout that is not a positive number is refused, as ignoring it would change what is promised."""
    assert (await api.embed({"input": "a"}, x_request_timeout_ms=value)).status_code == 400


async def test_a_client_that_goes_away_frees_the_queue(api: Api) -> None:
    """The items of a client that goes away leave the queue; the outcome is counted as cancelled."""
    api.served.backend.gate.clear()
    blocker = asyncio.create_task(api.embed({"input": "alpha"}))
    await asyncio.to_thread(api.served.backend.started.acquire)
    sent: list[Any] = []
    messages = [
        {"type": "http.request", "body": b'{"input": ["beta", "gamma"]}', "more_body": False}
    ]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/embeddings",
        "raw_path": b"/v1/embeddings",
        "headers": [],
        "query_string": b"",
        "http_version": "1.1",
        "root_path": "",
    }
    await api.app(scope, receive, send)
    assert api.served.observer.dropped["cancelled"] == 2
    assert api.served.observer.queue == (0, 0)
    api.served.backend.gate.set()
    assert (await blocker).status_code == 200
    metrics = await scrape(api)
    cancelled = sample(
        "nestvec_requests_total",
        route="/v1/embeddings",
        dialect="openai",
        model=SPEC.name,
        status="499",
    )
    assert metrics[cancelled] == 1


async def test_priority_is_read_from_its_header(api: Api) -> None:
    """Priorities come in a header, in which unknown words are not an error."""
    for word in ("bulk", "interactive", "urgent"):
        assert (await api.embed({"input": "a"}, x_embed_priority=word)).status_code == 200


async def test_readiness_follows_the_engine(make_api: MakeApi) -> None:
    """The server is not ready while its engine is started again, and is ready with it; draining stays draining."""
    api = make_api()
    state = api.app.state

    async def readiness() -> tuple[int, str]:
        answer = await api.client.get("/health/ready")
        return answer.status_code, answer.json()["status"]

    assert await readiness() == (200, "ready")
    state.note_engine(is_up=False)
    assert await readiness() == (503, "recovering")
    assert "nestvec_ready 0.0" in (await api.client.get("/metrics")).text
    state.note_engine(is_up=True)
    assert await readiness() == (200, "ready")
    state.set_phase(Phase.DRAINING)
    state.note_engine(is_up=False)
    state.note_engine(is_up=True)
    assert await readiness() == (503, "draining")
    answer = await api.embed({"input": "alpha"})
    assert answer.headers["connection"] == "close"


async def test_files_can_be_switched_off(make_api: MakeApi) -> None:
    """With `files_api` off there are no files and batches, and so no text is ever written to disk."""
    api = make_api(files_api=False)
    form = {"file": ("in.jsonl", b"{}")}
    answer = await api.client.post("/v1/files", data={"purpose": "batch"}, files=form)
    assert answer.status_code == 404
    assert (await api.client.get("/v1/batches")).status_code == 404
