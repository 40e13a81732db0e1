"""Paths and methods that no route has: the answer names the route that was meant."""

import pytest

from tests.api.applications import Api, MakeApi


@pytest.mark.parametrize(
    ("method", "path", "meant"),
    [
        ("POST", "/v1/embeddings/embeddings", "POST /v1/embeddings"),
        ("POST", "/v1/embedding", "POST /v1/embeddings"),
        ("POST", "/v1/Embeddings", "POST /v1/embeddings"),
        ("POST", "/v1/v1", "POST /v1/embeddings"),
        ("POST", "/v1", "POST /v1/embeddings"),
        ("POST", "/api/v1/embeddings", "POST /v1/embeddings"),
        ("POST", "/proxy/rerank", "POST /rerank"),
        ("GET", "/v1/embeddings", "POST /v1/embeddings"),
        ("POST", "/api/embedings", "POST /api/embeddings"),
        ("POST", "/embed_al", "POST /embed_all"),
        ("GET", "/v1/model", "GET /v1/models"),
        ("DELETE", "/v1/batches", "POST /v1/batches"),
        ("POST", "/api/api/embed", "POST /api/embed"),
        ("GET", "/api/tag", "GET /api/tags"),
        ("GET", "/helth", "GET /health"),
    ],
)
async def test_the_answer_names_what_was_meant(
    api: Api, method: str, path: str, meant: str
) -> None:
    """The closest route is named with its method, in the error's form of the dialect."""
    answer = await api.client.request(
        method, path, json={"input": "a"} if method == "POST" else None
    )
    assert answer.status_code in (404, 405)
    assert f"Did you mean {meant}?" in answer.text


@pytest.mark.parametrize(
    "path", ["/nowhere/at/all", "/metric", "/admin", "/v1/chat", f"/{'v1/' * 90}x"]
)
async def test_no_guess_is_better_than_a_wild_one(make_api: MakeApi, path: str) -> None:
    """Nothing is named for paths that are like none, too long, or like an operators' route."""
    answer = await make_api().client.get(path)
    assert answer.status_code == 404
    assert "Did you mean" not in answer.text
    assert "Invalid URL (GET /" in answer.text
