"""Who answers on paths that several dialects want; bodies as real clients were seen to send them (api-contract 10)."""

from typing import Any

import pytest
from nestvec.api.dispatch import DOCS, EMBEDDINGS, RERANK, claimants

from tests.api.applications import Api

T = ["hello", "world"]


@pytest.mark.parametrize(
    ("client", "body", "dialect"),
    [
        ("openai", {"input": T, "model": "m", "encoding_format": "base64"}, "openai"),
        ("langchain", {"input": [[5], [6]], "model": "m", "encoding_format": "base64"}, "openai"),
        ("haystack", {"input": "hello", "model": "m", "encoding_format": "float"}, "openai"),
        ("litellm", {"model": "m", "input": T}, "openai"),
        ("haystack-jina", {"input": T, "model": "m", "task": "retrieval.passage"}, "openai"),
        ("our extension", {"input": T, "output_dtype": "int8", "input_type": "query"}, "openai"),
        (
            "voyageai",
            {
                "input": T,
                "model": "m",
                "input_type": None,
                "truncation": True,
                "output_dtype": None,
                "output_dimension": None,
                "encoding_format": "base64",
            },
            "voyage",
        ),
        ("null counts", {"input": T, "output_dimension": None}, "voyage"),
        ("jina", {"input": T, "embedding_type": "float"}, "jina"),
        ("jina objects", {"input": [{"text": "hello"}]}, "jina"),
        ("jina objects beside texts", {"input": ["a", {"text": "hello"}]}, "jina"),
        ("jina multivector", {"input": T, "return_multivector": True}, "jina"),
        ("voyage comes first", {"input": T, "truncation": True, "normalized": True}, "voyage"),
    ],
)
def test_embeddings(client: str, body: dict[str, Any], dialect: str) -> None:
    """Decisions 15."""
    del client
    found = next(d.name for d, claim in claimants(EMBEDDINGS) if claim.holds(body))
    assert found == dialect


@pytest.mark.parametrize("path", list(DOCS))
def test_any_body_finds_somebody(path: str) -> None:
    """The last claim takes whatever is left."""
    assert claimants(path)[-1][1].holds({})


async def test_the_answer_is_in_the_dialect_that_was_chosen(api: Api) -> None:
    """Voyage's usage has no prompt tokens, Jina's comes before; metrics count by dialect."""
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
            f'nestvec_requests_total{{dialect="{dialect}",route="/v1/embeddings",status="200"}} 1.0'
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
    """TEI's form needs a re-ranker; the others answer for every client at once."""
    answer = await api.client.post(RERANK, json=body)
    assert answer.status_code == status
    assert list(answer.json()) == (
        keys or ["id", "object", "model", "results", "data", "usage", "meta"]
    )


async def test_errors_before_the_body_is_read_are_openais(api: Api) -> None:
    """Nobody knows the dialect yet."""
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
    """The deployment names the model, whatever the body says."""
    answer = await api.client.post(path, json={"input": "alpha", "model": "fake-model"})
    assert answer.status_code == 200, answer.text
    if "deployments" in path:
        other = await api.client.post(path, json={"input": "alpha", "model": "another"})
        assert other.status_code == 200


async def test_azures_models(api: Api) -> None:
    """Its prefix stands for /v1."""
    found = (await api.client.get("/openai/models")).json()
    assert found == (await api.client.get("/v1/models")).json()
