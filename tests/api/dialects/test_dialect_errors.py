"""Each class of error, on each route that embeds, in its dialect's status and shape.

What clients need is in docs/wire-behaviour.md, "Errors" and "Statuses and retries".
"""

import asyncio
from typing import Any

import httpx
import pytest
from nestvec.api.dispatch import all_routers
from nestvec.api.state import Phase
from nestvec.config.settings import Settings
from nestvec.engine.limits import ServiceLimits
from nestvec.main import build_app

from tests.api.applications import Api, MakeApi
from tests.api.dialects.routes import (
    INFER,
    LONG,
    ROUTES,
    Route,
    check_shape,
    each_route,
    each_where,
    send,
    status_in,
)
from tests.support.fakes import BAD_ID, NAN_ID
from tests.support.served import ServedOptions


@each_route
async def test_a_good_request_passes(api: Api, route: Route) -> None:
    """A good body is answered on every route; otherwise the cases below would prove nothing."""
    answer = await send(api, route, route.body(["alpha", "beta gamma"]))
    assert answer.status_code == 200, answer.text


@each_route
@pytest.mark.parametrize(
    "content", [b"{", b"", b"[1]", b'{"input": NaN}', b"\xff", b"[" * 10_000, b'"text"']
)
async def test_a_body_that_is_no_json_object(api: Api, route: Route, content: bytes) -> None:
    """A body that is no JSON object is 400 everywhere."""
    answer = await send(api, route, content)
    assert answer.status_code == 400
    check_shape(answer, route.dialect)


@each_route
@pytest.mark.parametrize("wrong", [7, {"a": 1}, [None], ["alpha", 7], ["alpha", ["beta"]], True])
async def test_inputs_of_a_wrong_type(api: Api, route: Route, wrong: Any) -> None:
    """Inputs of a wrong type are refused, and nothing is embedded."""
    texts = wrong if isinstance(wrong, list) else None
    body = route.body(texts or ["alpha"])
    if texts is None:
        name = next(iter(body))
        body[name] = wrong
    answer = await send(api, route, body)
    assert answer.status_code == status_in(route.dialect, 422), answer.text
    check_shape(answer, route.dialect)
    assert api.served.backend.batches == []


@each_route
async def test_missing_inputs(api: Api, route: Route) -> None:
    """A body without inputs is refused, but by Ollama, whose clients send it to load a model."""
    answer = await send(api, route, {"truncation": None} if route.dialect == "voyage" else {})
    if route.dialect == "ollama":
        assert answer.json()["embeddings"] == []
        return
    assert answer.status_code == status_in(route.dialect, 422)
    check_shape(answer, "openai" if route.dialect == "jina" else route.dialect)


@each_route
async def test_an_empty_batch(api: Api, route: Route) -> None:
    """An empty list of inputs is 400, and TEI names it `Empty`; Ollama answers with an empty list."""
    body = {"inputs": []} if route.dialect == "open-inference" else route.body([])
    answer = await send(api, route, body)
    if route.dialect == "ollama":
        assert answer.json()["embeddings"] == []
        return
    assert answer.status_code == 400
    check_shape(answer, route.dialect)
    if route.dialect == "tei":
        assert answer.json()["error_type"] == "Empty"


@each_route
async def test_too_many_inputs(make_api: MakeApi, route: Route) -> None:
    """More inputs than the server takes are refused, with the limit in the message."""
    api = make_api(ServedOptions(limits=ServiceLimits(max_inputs=3)))
    answer = await send(api, route, route.body(["alpha"] * 4))
    assert answer.status_code == status_in(route.dialect, 422)
    assert "at most 3" in check_shape(answer, route.dialect)


@each_route
async def test_an_input_that_is_too_long(api: Api, route: Route) -> None:
    """With truncation off an error tells both numbers, and the input where the dialect has a place for that."""
    body = {**route.body(["alpha", LONG]), **route.truncation_off}
    answer = await send(api, route, body)
    assert answer.status_code == status_in(route.dialect, 422)
    message = check_shape(answer, route.dialect)
    assert "16" in message
    assert "42" in message
    if route.dialect == "gemini":
        violation, info = answer.json()["error"]["details"]
        assert violation["fieldViolations"][0]["field"] == route.param
        assert info["reason"] == "CONTEXT_LENGTH_EXCEEDED"
    elif route.dialect not in ("tei", "ollama", "open-inference"):
        assert answer.json()["error"]["param"] == route.param
        assert answer.json()["error"]["code"] == "context_length_exceeded"
    elif route.param:
        assert route.param in message


@each_where(lambda route: bool(route.dimensions))
@pytest.mark.parametrize("wrong", [-1, 9, "4", 2.5, True])
async def test_wrong_dimensions(api: Api, route: Route, wrong: Any) -> None:
    """Wrong dimensions are refused by the dialect's own name for them."""
    answer = await send(api, route, {**route.body(["alpha"]), route.dimensions: wrong})
    assert answer.status_code == status_in(route.dialect, 422)
    assert route.dimensions in check_shape(answer, route.dialect)


@each_where(lambda route: route.dialect != "open-inference")  # its options lie in 'parameters'
async def test_another_dialects_field_is_not_ignored(api: Api, route: Route) -> None:
    """A field of another dialect is refused where ignoring it would give other vectors than the caller wants."""
    stranger = {
        "openai": "embedding_types",
        "voyage": "dimensions",
        "perplexity": "output_dimension",
        "jina": "prompt_name",
        "cohere": "dimensions",
        "tei": "output_dtype",
        "ollama": "output_dimension",
        "gemini": "dimensions",
    }[route.dialect]
    answer = await send(api, route, {**route.body(["alpha"]), stranger: 4})
    assert answer.status_code == status_in(route.dialect, 422)
    message = check_shape(answer, route.dialect)
    assert f"`{stranger}` is a field of another dialect" in message
    harmless = await send(api, route, {**route.body(["alpha"]), stranger: None, "unheard_of": 1})
    assert harmless.status_code == 200


@each_route
async def test_an_unknown_model(api: Api, route: Route) -> None:
    """An unknown model is 404, but in TEI, whose clients send any name."""
    path = {
        "open-inference": "/v2/models/other/infer",
        "gemini": "/v1beta/models/other:batchEmbedContents",
    }.get(route.dialect)
    if not route.model and path is None:
        answer = await send(api, route, {**route.body(["alpha"]), "model": "other"})
        assert answer.status_code == 200
        return
    answer = (
        await api.client.post(path, json=route.body(["alpha"]))
        if path is not None
        else await send(api, route, {**route.body(["alpha"]), "model": "other"})
    )
    assert answer.status_code == 404
    assert "other" in check_shape(answer, route.dialect)
    if route.dialect == "ollama":
        assert answer.json() == {"error": "model 'other' not found"}


@each_route
async def test_keys(make_api: MakeApi, route: Route) -> None:
    """A missing or wrong key is 401 with a body, also in TEI; each vendor's header for the key is accepted."""
    api = make_api(api_keys=["secret"])
    body = route.body(["alpha"])
    for headers in ({}, {"authorization": "Bearer wrong"}, {"api_key": "wrong"}):
        answer = await send(api, route, body, **headers)
        assert answer.status_code == 401
        assert "secret" not in check_shape(answer, route.dialect)
        assert answer.headers["www-authenticate"] == "Bearer"
    for headers in ({"authorization": "Bearer secret"}, {"api_key": "secret"}):
        assert (await send(api, route, body, **headers)).status_code == 200


@each_route
async def test_a_body_that_is_too_large(make_api: MakeApi, route: Route) -> None:
    """A body that is too large is 413 everywhere."""
    api = make_api(max_body_bytes=2000)
    answer = await send(api, route, route.body(["alpha " * 1000]))
    assert answer.status_code == 413
    check_shape(answer, route.dialect)


@each_route
async def test_a_full_queue(make_api: MakeApi, route: Route) -> None:
    """A full queue is answered in the dialect's status, with Retry-After in whole seconds."""
    api = make_api(ServedOptions(max_queue_tokens=8))
    api.served.backend.gate.clear()
    waiting = [asyncio.ensure_future(send(api, route, route.body(["alpha"])))]
    await asyncio.to_thread(api.served.backend.started.acquire)
    waiting += [asyncio.ensure_future(send(api, route, route.body(["alpha"]))) for _ in range(2)]
    async with asyncio.timeout(5):
        while api.served.observer.queue[0] < 2:
            await asyncio.sleep(0.005)
    answer = await send(api, route, route.body(["one two three"]))
    api.served.backend.gate.set()
    await asyncio.gather(*waiting)
    assert answer.status_code == status_in(route.dialect, 429)
    check_shape(answer, route.dialect)
    assert 1 <= int(answer.headers["retry-after"]) <= 120


@each_route
@pytest.mark.parametrize("word", ["bad", "nan"])
async def test_a_failure_of_the_model(api: Api, route: Route, word: str, monkeypatch: Any) -> None:
    """A failure of the model is 500 (TEI: 424) with the request's id in the message, and none of the caller's text."""
    poison = {"bad": BAD_ID, "nan": NAN_ID}[word]
    backend = type(api.served.backend)
    run = backend.run

    def poisoned(self: Any, batch: Any) -> Any:
        batch.arrays["ids"][:] = poison
        return run(self, batch)

    monkeypatch.setattr(backend, "run", poisoned)
    answer = await send(api, route, route.body(["alpha"]), x_request_id="my-id")
    assert answer.status_code == status_in(route.dialect, 500)
    message = check_shape(answer, route.dialect)
    assert "my-id" in message
    assert "secret" not in answer.text
    assert ("x-should-retry" in answer.headers) is (word == "nan")


@each_route
async def test_a_deadline(api: Api, route: Route) -> None:
    """A request whose deadline has passed is 504 everywhere."""
    api.served.backend.gate.clear()
    answer = await send(api, route, route.body(["alpha"]), x_request_timeout_ms="30")
    api.served.backend.gate.set()
    assert answer.status_code == 504
    check_shape(answer, route.dialect)


@each_route
async def test_while_loading(route: Route) -> None:
    """While the model is loading the answer is 503 (TEI: 429) with Retry-After."""
    app = build_app(Settings())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        assert app.state.phase is Phase.LOADING
        answer = await client.post(route.path, json=route.body(["alpha"]))
    assert answer.status_code == status_in(route.dialect, 503)
    check_shape(answer, "openai" if route.path == "/v1/embeddings" else route.dialect)
    assert answer.headers["retry-after"] == "5"


@each_where(lambda route: route.path not in ("/", INFER))  # GET is another route there
async def test_a_wrong_method(api: Api, route: Route) -> None:
    """A wrong method is 405 in the dialect's shape, and names the methods that are allowed."""
    answer = await api.client.delete(route.path)
    assert answer.status_code == 405
    check_shape(answer, "openai" if route.path == "/v1/embeddings" else route.dialect)
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("path", "dialect"),
    [("/api/none", "ollama"), ("/v2/health/none", "open-inference"), ("/v1/none", "openai")],
)
async def test_unknown_paths(api: Api, path: str, dialect: str) -> None:
    """An unknown path is answered in the dialect that it looks like."""
    answer = await api.client.post(path)
    assert answer.status_code == 404
    check_shape(answer, dialect)


async def test_tei_1_8_refuses_with_413(make_api: MakeApi) -> None:
    """With `tei_compat` 1.8 a too-long input is 413, and is cut only on request."""
    api = make_api(tei_compat="1.8")
    answer = await api.client.post("/embed", json={"inputs": LONG})
    assert (answer.status_code, answer.json()["error_type"]) == (413, "Validation")
    cut = await api.client.post("/embed", json={"inputs": LONG, "truncate": True})
    assert cut.status_code == 200
    info = (await api.client.get("/info")).json()
    assert info["auto_truncate"] is False


def test_no_route_is_left_out() -> None:
    """Every route that takes a body is in the table above, or among those that embed nothing."""
    others = {
        *("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score", "/similarity", "/vertex"),
        *("/predict", "/classify", "/embed_sparse", "/tokenize", "/decode", "/invocations"),
        *("/api/embeddings", "/api/show", "/api/pull", "/v2/repository/index", "/v1/rescore"),
        "/v1/chunk",
    }
    served = {
        getattr(route, "path", "")
        for router in all_routers()
        for route in router.routes
        if "POST" in getattr(route, "methods", ())
    }
    tested = {route.path for route in ROUTES if "org/fake-model" not in route.path}
    named = {
        *("/openai/deployments/{deployment:path}/embeddings", "/v2/models/{rest:path}"),
        *("/v1/models/{target:path}", "/v1beta/models/{target:path}"),
        *(
            f"/{version}/models/{{model:path}}:{method}"
            for version in ("v1", "v1beta")
            for method in ("embedContent", "batchEmbedContents")
        ),
    }
    assert served - others - named - {"/engines/{deployment:path}/embeddings"} == tested
