"""Each class of error, on each route that embeds, in its dialect's status and shape (api-contract 0.4 and 0.5)."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from nestvec.api.dispatch import all_routers
from nestvec.api.state import Phase
from nestvec.config.settings import Settings
from nestvec.engine.service import ServiceLimits
from nestvec.main import build_app

from tests.api.applications import Api, MakeApi
from tests.support.fakes import BAD_ID, NAN_ID
from tests.support.served import ServedOptions

LONG = "alpha " * 40
BAD_TEXT, NAN_TEXT = "bad", "nan"
Texts = Sequence[Any]


@dataclass(frozen=True)
class Route:
    """A route that embeds texts.

    Attributes:
        body: A good body of these texts.
        truncation_off: What to add so that long texts are refused.
        dimensions: Its field for that, "" for none.
        place: Where an error says the second text stands, "" where it cannot.
    """

    path: str
    dialect: str
    body: Callable[[Texts], dict[str, Any]]
    truncation_off: Mapping[str, Any] = field(default_factory=dict)
    dimensions: str = "dimensions"
    place: str = "input[1]"
    model: str = "model"


def tensor(texts: Texts) -> dict[str, Any]:
    """Of the Open Inference Protocol."""
    data = list(texts)
    return {"inputs": [{"name": "text", "shape": [len(data)], "datatype": "BYTES", "data": data}]}


INFER = "/v2/models/org/fake-model/infer"
ROUTES = [
    Route("/v1/embeddings", "openai", lambda t: {"input": t}),
    Route("/embeddings", "openai", lambda t: {"input": t}),
    Route("/pooling", "openai", lambda t: {"input": t}),
    Route("/v1/similarity", "openai", lambda t: {"left": t}, place="left[1]"),
    Route(
        "/openai/deployments/org/fake-model/embeddings", "openai", lambda t: {"input": t}, model=""
    ),
    Route(
        "/v1/embeddings",
        "voyage",
        lambda t: {"input": t, "truncation": True},
        {"truncation": False},
        "output_dimension",
    ),
    Route("/v1/embeddings", "jina", lambda t: {"input": t, "embedding_type": "float"}),
    Route(
        "/v1/contextualizedembeddings",
        "voyage",
        lambda t: {"inputs": [[one] for one in t]},
        dimensions="output_dimension",
        place="inputs[1][0]",
    ),
    Route(
        "/v2/embed",
        "cohere",
        lambda t: {"texts": t},
        {"truncate": "NONE"},
        "output_dimension",
        "texts[1]",
    ),
    Route(
        "/v1/embed",
        "cohere",
        lambda t: {"texts": t},
        {"truncate": "NONE"},
        "output_dimension",
        "texts[1]",
    ),
    Route("/embed", "tei", lambda t: {"inputs": t}, {"truncate": False}, place="", model=""),
    Route("/", "tei", lambda t: {"inputs": t}, {"truncate": False}, place="", model=""),
    Route("/embed_all", "tei", lambda t: {"inputs": t}, {"truncate": False}, "", "", ""),
    Route("/api/embed", "ollama", lambda t: {"input": t}, {"truncate": False}, "", "input[1]"),
    Route(
        INFER,
        "open-inference",
        tensor,
        dimensions="",
        place="text[1]",
        model="",
    ),
]


def name_of(route: Route) -> str:
    """For people."""
    return f"{route.dialect} {route.path}"


def each_where(fits: Callable[[Route], bool]) -> pytest.MarkDecorator:
    """Routes to which a case applies."""
    chosen = [route for route in ROUTES if fits(route)]
    return pytest.mark.parametrize("route", chosen, ids=[name_of(route) for route in chosen])


each_route = each_where(lambda route: True)


def check_shape(answer: httpx.Response, dialect: str) -> str:
    """The dialect's body to the key; gives the message."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    if dialect in ("openai", "voyage", "jina", "cohere"):
        assert list(body) == ["error", "detail", "message"]
        assert list(body["error"]) == ["message", "type", "param", "code"]
        assert body["error"]["message"] == body["detail"] == body["message"]
        return str(body["message"])
    assert list(body) == (["error", "error_type"] if dialect == "tei" else ["error"])
    assert isinstance(body["error"], str)
    return str(body["error"])


def status_in(dialect: str, common: int) -> int:
    """What a status is in a dialect."""
    own = {
        ("tei", 422): 422,
        ("tei", 500): 424,
        ("tei", 503): 429,
        ("ollama", 429): 503,
    }
    return own.get((dialect, common), 400 if common == 422 else common)


async def send(api: Api, route: Route, content: Any, **headers: str) -> httpx.Response:
    """POST a body, or bytes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(content, bytes):
        return await api.client.post(route.path, content=content, headers=named)
    return await api.client.post(route.path, json=content, headers=named)


@each_route
async def test_a_good_request_passes(api: Api, route: Route) -> None:
    """Else the cases below would prove nothing."""
    answer = await send(api, route, route.body(["alpha", "beta gamma"]))
    assert answer.status_code == 200, answer.text


@each_route
@pytest.mark.parametrize(
    "content", [b"{", b"", b"[1]", b'{"input": NaN}', b"\xff", b"[" * 10_000, b'"text"']
)
async def test_a_body_that_is_no_json_object(api: Api, route: Route, content: bytes) -> None:
    """400 everywhere."""
    answer = await send(api, route, content)
    assert answer.status_code == 400
    check_shape(answer, route.dialect)


@each_route
@pytest.mark.parametrize("wrong", [7, {"a": 1}, [None], ["alpha", 7], ["alpha", ["beta"]], True])
async def test_inputs_of_a_wrong_type(api: Api, route: Route, wrong: Any) -> None:
    """Never a crash, never embedded."""
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
    """Only Ollama's clients ask for nothing on purpose."""
    answer = await send(api, route, {"truncation": None} if route.dialect == "voyage" else {})
    if route.dialect == "ollama":
        assert answer.json()["embeddings"] == []
        return
    assert answer.status_code == status_in(route.dialect, 422)
    check_shape(answer, "openai" if route.dialect == "jina" else route.dialect)


@each_route
async def test_an_empty_batch(api: Api, route: Route) -> None:
    """400; TEI has a word for it."""
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
    """Refused before anything is tokenised."""
    api = make_api(ServedOptions(limits=ServiceLimits(max_inputs=3)))
    answer = await send(api, route, route.body(["alpha"] * 4))
    assert answer.status_code == status_in(route.dialect, 422)
    assert "at most 3" in check_shape(answer, route.dialect)


@each_route
async def test_an_input_that_is_too_long(api: Api, route: Route) -> None:
    """With truncation off; the message has both numbers, and the place where the dialect has one."""
    body = {**route.body(["alpha", LONG]), **route.truncation_off}
    answer = await send(api, route, body)
    assert answer.status_code == status_in(route.dialect, 422)
    message = check_shape(answer, route.dialect)
    assert "16" in message
    assert "42" in message
    if route.dialect not in ("tei", "ollama", "open-inference"):
        assert answer.json()["error"]["param"] == route.place
        assert answer.json()["error"]["code"] == "context_length_exceeded"
    elif route.place:
        assert route.place in message


@each_where(lambda route: bool(route.dimensions))
@pytest.mark.parametrize("wrong", [-1, 9, "4", 2.5, True])
async def test_wrong_dimensions(api: Api, route: Route, wrong: Any) -> None:
    """By the dialect's own name for them."""
    answer = await send(api, route, {**route.body(["alpha"]), route.dimensions: wrong})
    assert answer.status_code == status_in(route.dialect, 422)
    assert route.dimensions in check_shape(answer, route.dialect)


@each_where(lambda route: route.dialect != "open-inference")  # its options lie in 'parameters'
async def test_another_dialects_field_is_not_ignored(api: Api, route: Route) -> None:
    """Where that would give other vectors than asked for (decisions 16)."""
    stranger = {
        "openai": "embedding_types",
        "voyage": "dimensions",
        "jina": "prompt_name",
        "cohere": "dimensions",
        "tei": "output_dtype",
        "ollama": "output_dimension",
    }[route.dialect]
    answer = await send(api, route, {**route.body(["alpha"]), stranger: 4})
    assert answer.status_code == status_in(route.dialect, 422)
    message = check_shape(answer, route.dialect)
    assert f"`{stranger}` is a field of another dialect" in message
    harmless = await send(api, route, {**route.body(["alpha"]), stranger: None, "unheard_of": 1})
    assert harmless.status_code == 200


@each_route
async def test_an_unknown_model(api: Api, route: Route) -> None:
    """404, but in TEI, whose clients send any name."""
    if not route.model and route.dialect != "open-inference":
        answer = await send(api, route, {**route.body(["alpha"]), "model": "other"})
        assert answer.status_code == 200
        return
    path = "/v2/models/other/infer"
    answer = (
        await api.client.post(path, json=route.body(["alpha"]))
        if route.dialect == "open-inference"
        else await send(api, route, {**route.body(["alpha"]), "model": "other"})
    )
    assert answer.status_code == 404
    assert "other" in check_shape(answer, route.dialect)
    if route.dialect == "ollama":
        assert answer.json() == {"error": "model 'other' not found"}


@each_route
async def test_keys(make_api: MakeApi, route: Route) -> None:
    """401 with a body, also in TEI; each vendor's header is taken."""
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
    """413 everywhere."""
    api = make_api(max_body_bytes=2000)
    answer = await send(api, route, route.body(["alpha " * 1000]))
    assert answer.status_code == 413
    check_shape(answer, route.dialect)


@each_route
async def test_a_full_queue(make_api: MakeApi, route: Route) -> None:
    """Retry-After in whole seconds, in each dialect's status."""
    api = make_api(ServedOptions(max_queue_tokens=8))
    api.served.backend.gate.clear()
    held = [asyncio.ensure_future(send(api, route, route.body(["alpha"])))]
    await asyncio.to_thread(api.served.backend.started.acquire)
    held += [asyncio.ensure_future(send(api, route, route.body(["alpha"]))) for _ in range(2)]
    async with asyncio.timeout(5):
        while api.served.observer.queue[0] < 2:
            await asyncio.sleep(0.005)
    answer = await send(api, route, route.body(["one two three"]))
    api.served.backend.gate.set()
    await asyncio.gather(*held)
    assert answer.status_code == status_in(route.dialect, 429)
    check_shape(answer, route.dialect)
    assert 1 <= int(answer.headers["retry-after"]) <= 120


@each_route
@pytest.mark.parametrize("word", ["bad", "nan"])
async def test_a_failure_of_the_model(api: Api, route: Route, word: str, monkeypatch: Any) -> None:
    """500 (TEI: 424) with the request's id, and no text of a caller."""
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
    """504 everywhere."""
    api.served.backend.gate.clear()
    answer = await send(api, route, route.body(["alpha"]), x_request_timeout_ms="30")
    api.served.backend.gate.set()
    assert answer.status_code == 504
    check_shape(answer, route.dialect)


@each_route
async def test_while_loading(route: Route) -> None:
    """503 and Retry-After; TEI has 429 for it."""
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
    """405 in the dialect's shape, with the methods that would do."""
    answer = await api.client.delete(route.path)
    assert answer.status_code == 405
    check_shape(answer, "openai" if route.path == "/v1/embeddings" else route.dialect)
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("path", "dialect"),
    [("/api/none", "ollama"), ("/v2/health/none", "open-inference"), ("/v1/none", "openai")],
)
async def test_unknown_paths(api: Api, path: str, dialect: str) -> None:
    """In the dialect that they look like."""
    answer = await api.client.post(path)
    assert answer.status_code == 404
    check_shape(answer, dialect)


async def test_tei_1_8_refuses_with_413(make_api: MakeApi) -> None:
    """And cuts nothing unasked."""
    api = make_api(tei_compat="1.8")
    answer = await api.client.post("/embed", json={"inputs": LONG})
    assert (answer.status_code, answer.json()["error_type"]) == (413, "Validation")
    cut = await api.client.post("/embed", json={"inputs": LONG, "truncate": True})
    assert cut.status_code == 200
    info = (await api.client.get("/info")).json()
    assert info["auto_truncate"] is False


def test_no_route_is_left_out() -> None:
    """A new route that takes a body must stand in the table above, or among those that embed nothing."""
    others = {
        *("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score", "/similarity", "/vertex"),
        *("/predict", "/classify", "/embed_sparse", "/tokenize", "/decode", "/invocations"),
        *("/api/embeddings", "/api/show", "/api/pull", "/v2/repository/index", "/v1/rescore"),
    }
    found = {
        getattr(route, "path", "")
        for router in all_routers()
        for route in router.routes
        if "POST" in getattr(route, "methods", ())
    }
    tested = {route.path for route in ROUTES if "org/fake-model" not in route.path}
    named = {"/openai/deployments/{deployment:path}/embeddings", "/v2/models/{rest:path}"}
    assert found - others - named - {"/engines/{deployment:path}/embeddings"} == tested
