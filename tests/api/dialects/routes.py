"""The routes that embed texts, one row each, for tests that hold for all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.api.applications import Api

LONG = "alpha " * 40
Texts = Sequence[Any]


@dataclass(frozen=True)
class Route:
    """A route that embeds texts.

    Attributes:
        path: The route's path.
        dialect: The dialect in which a good body is answered.
        body: Builds a good body of texts.
        truncation_off: What to add to a body so that long texts are refused.
        dimensions: The field for dimensions, "" for none.
        param: What an error calls the second text, "" where it cannot.
        model: The field for the model's name, "" for none.
    """

    path: str
    dialect: str
    body: Callable[[Texts], dict[str, Any]]
    truncation_off: Mapping[str, Any] = field(default_factory=dict)
    dimensions: str = "dimensions"
    param: str = "input[1]"
    model: str = "model"


def tensor(texts: Texts) -> dict[str, Any]:
    """Return a body of the Open Inference Protocol."""
    data = list(texts)
    return {"inputs": [{"name": "text", "shape": [len(data)], "datatype": "BYTES", "data": data}]}


def contents(texts: Texts) -> dict[str, Any]:
    """Return a body of Gemini's batches."""
    return {"requests": [{"content": {"parts": [{"text": text}]}} for text in texts]}


INFER = "/v2/models/org/fake-model/infer"
ROUTES = [
    Route("/v1/embeddings", "openai", lambda t: {"input": t}),
    Route("/embeddings", "openai", lambda t: {"input": t}),
    Route("/pooling", "openai", lambda t: {"input": t}),
    Route("/v1/similarity", "openai", lambda t: {"left": t}, param="left[1]"),
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
        "/v1/classify",
        "jina",
        lambda t: {"input": t, "labels": ["one", "two"]},
        dimensions="",
    ),
    Route(
        "/v1/contextualizedembeddings",
        "voyage",
        lambda t: {"inputs": [[text] for text in t]},
        dimensions="output_dimension",
        param="inputs[1][0]",
    ),
    Route(
        "/v1/contextualizedembeddings",
        "perplexity",
        lambda t: {"input": [[text] for text in t]},
        param="input[1][0]",
    ),
    Route(
        "/v1/multimodalembeddings",
        "voyage",
        lambda t: {"inputs": [{"content": [{"type": "text", "text": text}]} for text in t]},
        {"truncation": False},
        "output_dimension",
        "inputs[1]",
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
    Route("/embed", "tei", lambda t: {"inputs": t}, {"truncate": False}, param="", model=""),
    Route("/", "tei", lambda t: {"inputs": t}, {"truncate": False}, param="", model=""),
    Route("/embed_all", "tei", lambda t: {"inputs": t}, {"truncate": False}, "", "", ""),
    Route("/api/embed", "ollama", lambda t: {"input": t}, {"truncate": False}, "", "input[1]"),
    Route(
        INFER,
        "open-inference",
        tensor,
        dimensions="",
        param="text[1]",
        model="",
    ),
    Route(
        "/v1beta/models/org/fake-model:batchEmbedContents",
        "gemini",
        contents,
        {"autoTruncate": False},
        "",
        param="requests[1]",
        model="",
    ),
]


def name_of(route: Route) -> str:
    """Return the id of a test's case."""
    return f"{route.dialect} {route.path}"


def each_where(fits: Callable[[Route], bool]) -> pytest.MarkDecorator:
    """Parametrize a test by the routes to which its case applies."""
    chosen = [route for route in ROUTES if fits(route)]
    return pytest.mark.parametrize("route", chosen, ids=[name_of(route) for route in chosen])


each_route = each_where(lambda route: True)


def check_shape(answer: httpx.Response, dialect: str) -> str:
    """Check that an error has exactly the keys of its dialect; return its message."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    if dialect in ("openai", "voyage", "perplexity", "jina", "cohere"):
        assert list(body) == ["error", "detail", "message"]
        assert list(body["error"]) == ["message", "type", "param", "code"]
        assert body["error"]["message"] == body["detail"] == body["message"]
        return str(body["message"])
    if dialect == "gemini":
        assert list(body) == ["error"]
        assert list(body["error"]) == ["code", "message", "status", "details"]
        assert body["error"]["code"] == answer.status_code
        return str(body["error"]["message"])
    assert list(body) == (["error", "error_type"] if dialect == "tei" else ["error"])
    assert isinstance(body["error"], str)
    return str(body["error"])


def status_in(dialect: str, common: int) -> int:
    """Return what a status of the OpenAI dialect is in another."""
    statuses = {
        ("tei", 422): 422,
        ("tei", 500): 424,
        ("tei", 503): 429,
        ("ollama", 429): 503,
    }
    return statuses.get((dialect, common), 400 if common == 422 else common)


async def send(api: Api, route: Route, content: Any, **headers: str) -> httpx.Response:
    """POST a body as JSON, or bytes as they are."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(content, bytes):
        return await api.client.post(route.path, content=content, headers=named)
    return await api.client.post(route.path, json=content, headers=named)
