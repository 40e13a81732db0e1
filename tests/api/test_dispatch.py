"""Which dialect answers on a path that several share, for the bodies that real clients send."""

from typing import Any

import pytest
from fastapi import FastAPI
from nestvec.api.dispatch import DOCS, EMBEDDINGS, RERANK, all_routers, matches_of_path

from tests.api.applications import Api
from tests.support.served import SPEC

TEXTS = ["hello", "world"]


@pytest.mark.parametrize(
    ("client", "body", "dialect"),
    [
        ("openai", {"input": TEXTS, "model": "m", "encoding_format": "base64"}, "openai"),
        ("langchain", {"input": [[5], [6]], "model": "m", "encoding_format": "base64"}, "openai"),
        ("haystack", {"input": "hello", "model": "m", "encoding_format": "float"}, "openai"),
        ("litellm", {"model": "m", "input": TEXTS}, "openai"),
        ("haystack-jina", {"input": TEXTS, "model": "m", "task": "retrieval.passage"}, "openai"),
        (
            "our extension",
            {"input": TEXTS, "output_dtype": "int8", "input_type": "query"},
            "openai",
        ),
        (
            "voyageai",
            {
                "input": TEXTS,
                "model": "m",
                "input_type": None,
                "truncation": True,
                "output_dtype": None,
                "output_dimension": None,
                "encoding_format": "base64",
            },
            "voyage",
        ),
        ("null counts", {"input": TEXTS, "output_dimension": None}, "voyage"),
        ("jina", {"input": TEXTS, "embedding_type": "float"}, "jina"),
        ("jina objects", {"input": [{"text": "hello"}]}, "jina"),
        ("jina objects beside texts", {"input": ["a", {"text": "hello"}]}, "jina"),
        ("jina multivector", {"input": TEXTS, "return_multivector": True}, "jina"),
        ("voyage comes first", {"input": TEXTS, "truncation": True, "normalized": True}, "voyage"),
    ],
)
def test_embeddings(client: str, body: dict[str, Any], dialect: str) -> None:
    """A field that only one vendor's clients send tells its dialect; everything else is OpenAI's."""
    del client
    first = next(d.name for d, match in matches_of_path(EMBEDDINGS) if match.accepts(body))
    assert first == dialect


@pytest.mark.parametrize("path", list(DOCS))
def test_any_body_is_answered(path: str) -> None:
    """The last match of every shared path accepts any body."""
    assert matches_of_path(path)[-1][1].accepts({})


async def test_the_answer_is_in_the_dialect_that_was_chosen(api: Api) -> None:
    """Voyage's usage has no prompt tokens and Jina's comes first in the body; metrics count by dialect."""
    seen: dict[int, tuple[list[str], list[str]]] = {}
    for body in ({}, {"truncation": True}, {"embedding_type": "float"}):
        answer = await api.client.post("/v1/embeddings", json={"input": ["alpha"], **body})
        seen[len(seen)] = list(answer.json()), list(answer.json()["usage"])
    assert seen[0] == (["object", "data", "model", "usage"], ["prompt_tokens", "total_tokens"])
    assert seen[1] == (["object", "data", "model", "usage"], ["total_tokens"])
    assert seen[2] == (["object", "model", "data", "usage"], ["total_tokens", "prompt_tokens"])
    metrics = (await api.client.get("/metrics")).text
    for dialect in ("openai", "voyage", "jina"):
        line = (
            f'nestvec_requests_total{{dialect="{dialect}",model="{SPEC.name}",'
            'route="/v1/embeddings",status="200"} 1.0'
        )
        assert line in metrics


@pytest.mark.parametrize(
    ("body", "status", "keys"),
    [
        ({"query": "q", "texts": ["a"]}, 424, ["error", "error_type"]),
        ({"query": "q", "documents": ["a"], "top_k": 1}, 200, None),
        ({"query": "q", "documents": ["a"]}, 200, None),
        ({"query": "q"}, 400, ["error", "detail", "message"]),
    ],
)
async def test_rerank(api: Api, body: dict[str, Any], status: int, keys: list[str] | None) -> None:
    """TEI's form of a rerank needs a re-ranker; the others have one answer that every client understands."""
    answer = await api.client.post(RERANK, json=body)
    assert answer.status_code == status
    assert list(answer.json()) == (
        keys or ["id", "object", "model", "results", "data", "usage", "meta"]
    )


async def test_errors_before_the_body_is_read_are_openais(api: Api) -> None:
    """A body that cannot be parsed is answered in OpenAI's form, as its dialect is not known yet."""
    answer = await api.client.post("/v1/embeddings", content=b"{")
    assert list(answer.json()["error"]) == ["message", "type", "param", "code"]


@pytest.mark.parametrize(
    "path",
    [
        "/openai/v1/embeddings",
        "/v1/v1/embeddings",
        "/v1/embeddings/",
        "/openai/deployments/org/fake-model/embeddings?api-version=2024-10-21",
        "/openai/deployments/text-embedding-3-small/embeddings",
        "/engines/fake-model/embeddings",
    ],
)
async def test_azures_and_other_spellings_of_the_path(api: Api, path: str) -> None:
    """Every spelling of the path is served; a deployment in it names the model, whatever the body says."""
    answer = await api.client.post(path, json={"input": "alpha", "model": "fake-model"})
    assert answer.status_code == 200, answer.text
    if "deployments" in path:
        other = await api.client.post(path, json={"input": "alpha", "model": "another"})
        assert other.status_code == 200


async def test_azures_models(api: Api) -> None:
    """Azure's prefix `/openai` stands for `/v1`."""
    models = (await api.client.get("/openai/models")).json()
    assert models == (await api.client.get("/v1/models")).json()


def test_routes_are_served_as_they_are(api: Api) -> None:
    """Each route of a router is one of the application's: none is made anew when the first request comes."""
    app: Any = api.app
    while not isinstance(app, FastAPI):
        app = getattr(app, "_app", None) or app.app
    served = {id(route) for route in app.routes}
    assert all(id(route) in served for router in all_routers() for route in router.routes)
