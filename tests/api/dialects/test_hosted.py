"""Cohere, Jina and Voyage: exact answers, prompts by each vendor's words, chunks in the context of their document."""

from typing import Any

import httpx
import numpy as np
import pytest
from nestvec.engine.text.token_report import describe_tokens

from tests.api.applications import Api, unit_vector
from tests.support.fakes import fake_states

LONG = "alpha beta gamma red " * 10


async def post(api: Api, path: str, body: dict[str, Any]) -> httpx.Response:
    """POST a body, and return the answer, which must be good."""
    answer = await api.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer


async def test_cohere_v2(api: Api) -> None:
    """Vectors come by type, also where the body names none."""
    answer = (await post(api, "/v2/embed", {"texts": ["alpha", "beta gamma"]})).json()
    assert list(answer) == ["id", "embeddings", "texts", "meta", "response_type"]
    assert (answer["response_type"], answer["texts"]) == (
        "embeddings_by_type",
        ["alpha", "beta gamma"],
    )
    assert answer["meta"] == {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 7}}
    np.testing.assert_allclose(
        answer["embeddings"]["float"][0], unit_vector(api, "alpha"), atol=1e-6
    )


async def test_cohere_v1(api: Api) -> None:
    """Vectors come as a bare list, or by type where the body names types."""
    bare = (await post(api, "/v1/embed", {"texts": ["alpha"], "truncate": None})).json()
    assert bare["response_type"] == "embeddings_floats"
    np.testing.assert_allclose(bare["embeddings"], [unit_vector(api, "alpha")], atol=1e-6)
    by_type = {"texts": ["alpha"], "embedding_types": ["float"]}
    answer = (await post(api, "/v1/embed", by_type)).json()
    assert answer["response_type"] == "embeddings_by_type"
    assert answer["embeddings"] == {"float": bare["embeddings"]}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, " ".join(LONG.split()[:14])),
        ({"truncate": "END"}, " ".join(LONG.split()[:14])),
        ({"truncate": "START"}, " ".join(LONG.split()[-14:])),
        ({"max_tokens": 4}, "alpha beta"),
        ({"max_tokens": 4, "truncate": "START"}, "gamma red"),
    ],
)
async def test_cohere_cuts(api: Api, options: dict[str, Any], text: str) -> None:
    """START cuts off the beginning, and `max_tokens` lowers the limit."""
    answer = (await post(api, "/v2/embed", {"texts": [LONG], **options})).json()
    np.testing.assert_allclose(answer["embeddings"]["float"][0], unit_vector(api, text), atol=1e-6)


async def test_coheres_inputs(api: Api) -> None:
    """The text parts of an input are joined, a line each."""
    content = [{"type": "text", "text": "alpha"}, {"type": "text", "text": "beta"}]
    answer = (await post(api, "/v2/embed", {"inputs": [{"content": content}]})).json()
    np.testing.assert_allclose(
        answer["embeddings"]["float"][0], unit_vector(api, "alpha\nbeta"), atol=1e-6
    )


IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "texts"),
        ({"texts": ["a"], "inputs": []}, "inputs"),
        ({"images": ["data:,"]}, "images[0]"),
        ({"texts": ["a"], "input_type": "image"}, "input_type"),
        ({"texts": "a"}, "texts"),
        ({"inputs": ["a"]}, "inputs[0]"),
        ({"inputs": [{"content": []}]}, "inputs[0]"),
        ({"inputs": [{"content": [{"text": "a"}]}, {"content": [IMAGE]}]}, "inputs[1]"),
        ({"inputs": [{"content": [{"type": "text"}]}]}, "inputs[0]"),
        ({"inputs": [{"content": [{"text": LONG}]}], "truncate": "NONE"}, "inputs[0]"),
        ({"texts": ["a"], "embedding_types": "float"}, "embedding_types"),
        ({"texts": ["a"], "embedding_types": ["int4"]}, "embedding_types"),
        ({"texts": ["a"], "truncate": "MIDDLE"}, "truncate"),
        ({"texts": ["a"] * 97}, "texts"),
        (
            {"texts": ["a"], "output_dimension": 3, "embedding_types": ["binary"]},
            "output_dimension",
        ),
    ],
)
async def test_cohere_refuses(api: Api, body: dict[str, Any], param: str) -> None:
    """Errors name Cohere's own fields; more than 96 texts are refused, as Cohere's clients split them."""
    answer = await api.client.post("/v2/embed", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    if len(body.get("texts", ())) > 96:
        assert answer.json()["message"] == (
            "invalid request: total number of 'texts' must be at most 96 - received 97"
        )


WORDS = [
    ("/v2/embed", {"texts": ["alpha"]}, "input_type", "search_query", "search_document"),
    ("/v1/embeddings", {"input": ["alpha"], "truncation": True}, "input_type", "query", "document"),
    (
        "/v1/embeddings",
        {"input": ["alpha"], "normalized": True},
        "task",
        "retrieval.query",
        "retrieval.passage",
    ),
    ("/v1/embeddings", {"input": ["alpha"]}, "input_type", "query", "passage"),
    ("/v1/embeddings", {"input": ["alpha"]}, "task", "nl2code.query", "nl2code.passage"),
]


@pytest.mark.parametrize(("path", "body", "field", "query", "document"), WORDS)
async def test_queries_and_documents_get_the_models_prompts(
    api: Api, path: str, body: dict[str, Any], field: str, query: str, document: str
) -> None:
    """Each vendor's word for a role selects the model's prompt; a header says so where the model has none."""

    async def first(word: str) -> tuple[list[float], httpx.Response]:
        answer = await post(api, path, {**body, field: word})
        content = answer.json()
        if "embeddings" in content:
            return content["embeddings"]["float"][0], answer
        return content["data"][0]["embedding"], answer

    for word, text in ((query, "query : alpha"), (document, "passage : alpha")):
        vector, answer = await first(word)
        np.testing.assert_allclose(vector, unit_vector(api, text), atol=1e-6)
        assert "x-embed-prompt" not in answer.headers
    if field == "input_type" and "truncation" in body:
        return  # Voyage has these two only
    plain, answer = await first("classification")
    np.testing.assert_allclose(plain, unit_vector(api, "alpha"), atol=1e-6)
    assert answer.headers["x-embed-prompt"] == "none"


async def test_jina(api: Api) -> None:
    """Inputs may be objects or texts, and `usage` has the tokens under both names."""
    body = {"input": [{"text": "alpha"}, "beta gamma"], "model": "fake-model"}
    answer = (await post(api, "/v1/embeddings", body)).json()
    assert answer["usage"] == {"total_tokens": 7, "prompt_tokens": 7}
    assert answer["model"] == "fake-model"
    assert [item["index"] for item in answer["data"]] == [0, 1]
    np.testing.assert_allclose(
        answer["data"][1]["embedding"], unit_vector(api, "beta gamma"), atol=1e-6
    )


async def test_jinas_multivectors(api: Api) -> None:
    """Token vectors come under `embeddings`, of unit length unless the body says otherwise."""
    body = {"input": ["alpha", "beta gamma"], "return_multivector": True, "dimensions": 4}
    answer = (await post(api, "/v1/embeddings", body)).json()
    assert [list(item) for item in answer["data"]] == [["object", "index", "embeddings"]] * 2
    vectors = np.array(answer["data"][1]["embeddings"])
    assert vectors.shape == (4, 4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    raw = (await post(api, "/v1/embeddings", {**body, "normalized": False})).json()
    ids = [
        t.id for t in describe_tokens(api.served.tokenizer, "beta gamma", adds_special_tokens=True)
    ]
    np.testing.assert_allclose(raw["data"][1]["embeddings"], fake_states(ids)[:, :4], atol=1e-6)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": [{"image": "data:,"}]}, "input[0]"),
        ({"input": ["a", {"text": 7}]}, "input[1]"),
        ({"input": "a", "normalized": True, "task": "swimming"}, "task"),
        ({"input": "a", "embedding_type": "int4"}, "embedding_type"),
        ({"input": "a", "embedding_type": []}, "embedding_type"),
        ({"input": "a", "normalized": True, "encoding_format": "gzip"}, "encoding_format"),
        ({"input": "a", "normalized": "yes"}, "normalized"),
        ({"input": "a", "return_multivector": True, "late_chunking": True}, "late_chunking"),
        ({"input": "a", "embedding_type": "int8", "normalized": False}, "embedding_type"),
    ],
)
async def test_jina_refuses(api: Api, body: dict[str, Any], param: str) -> None:
    """Errors name Jina's own fields."""
    answer = await api.client.post("/v1/embeddings", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert answer.json()["detail"]


def states(api: Api, *chunks: str) -> list[Any]:
    """Return the token states of one document's chunks, by chunk."""
    parts = [
        describe_tokens(api.served.tokenizer, chunk, adds_special_tokens=False) for chunk in chunks
    ]
    frame = [t.id for t in describe_tokens(api.served.tokenizer, "", adds_special_tokens=True)]
    whole = fake_states([frame[0], *(t.id for part in parts for t in part), frame[1]])
    stops = np.cumsum([len(part) for part in parts]) + 1
    starts = [0, *stops[:-1]]
    stops[-1] += 1
    return [whole[a:b] for a, b in zip(starts, stops, strict=True)]


@pytest.mark.parametrize("extra", [{}, {"normalized": True}])
async def test_late_chunking(api: Api, extra: dict[str, Any]) -> None:
    """OpenAI's dialect and Jina's take inputs for chunks of one document, each pooled from its own tokens."""
    chunks = ["alpha beta", "red", "one two"]
    body = {"input": chunks, "late_chunking": True, **extra}
    answer = (await post(api, "/v1/embeddings", body)).json()
    for item, part in zip(answer["data"], states(api, *chunks), strict=True):
        pooled = part.mean(axis=0)
        np.testing.assert_allclose(item["embedding"], pooled / np.linalg.norm(pooled), atol=1e-6)
    assert answer["usage"]["total_tokens"] == 7


async def test_voyages_documents(api: Api) -> None:
    """Vectors are nested as the chunks of the documents are."""
    body = {"inputs": [["alpha", "beta gamma"], ["red"]], "output_dimension": 4}
    answer = (await post(api, "/v1/contextualizedembeddings", body)).json()
    assert [(d["object"], d["index"], len(d["data"])) for d in answer["data"]] == [
        ("list", 0, 2),
        ("list", 1, 1),
    ]
    pooled = states(api, "alpha", "beta gamma")[1].mean(axis=0)[:4]
    np.testing.assert_allclose(
        answer["data"][0]["data"][1]["embedding"], pooled / np.linalg.norm(pooled), atol=1e-6
    )
    np.testing.assert_allclose(
        answer["data"][1]["data"][0]["embedding"], unit_vector(api, "red", 4), atol=1e-6
    )
    assert answer["usage"] == {"total_tokens": 8}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "inputs"),
        ({"inputs": "a"}, "inputs"),
        ({"inputs": ["a"]}, "inputs[0]"),
        ({"inputs": [["a"], []]}, "inputs[1]"),
        ({"inputs": [["a"], ["b", LONG]]}, "inputs[1][1]"),
        ({"inputs": [["a", ""]]}, "inputs[0][1]"),
        ({"inputs": [["a"]], "enable_auto_chunking": True}, "enable_auto_chunking"),
        ({"inputs": [["a"]] * 1001}, "input"),
    ],
)
async def test_voyages_documents_are_checked(api: Api, body: dict[str, Any], param: str) -> None:
    """Errors name the document and the chunk."""
    answer = await api.client.post("/v1/contextualizedembeddings", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "a", "truncation": "END"}, None),
        ({"input": "a", "truncation": "perhaps"}, "truncation"),
        ({"input": "a", "output_dimension": 0}, "output_dimension"),
        ({"input": "a", "truncation": True, "input_type": "passage"}, "input_type"),
        ({"input": "a", "truncation": True, "encoding_format": "bytes"}, "encoding_format"),
        ({"input": ["a"] * 1001, "truncation": True}, "input"),
        ({"input": [[5]], "truncation": True}, "input[0]"),
    ],
)
async def test_voyage_refuses(api: Api, body: dict[str, Any], param: str | None) -> None:
    """Errors name Voyage's own fields; more than 1,000 inputs are refused."""
    answer = await api.client.post("/v1/embeddings", json=body)
    if param is None:
        assert answer.status_code == 200
        return
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
async def test_rerank(api: Api, path: str) -> None:
    """The nearest document comes first, by the model's prompts, and the list stands under the keys of every client."""
    documents = ["red green", "alpha", {"text": "beta"}]
    answer = await post(api, path, {"query": "alpha", "documents": documents})
    body = answer.json()
    assert answer.headers["x-embed-score"] == "cosine"
    query = unit_vector(api, "query : alpha")
    texts = ["red green", "alpha", "beta"]
    scores = [np.dot(query, unit_vector(api, f"passage : {text}")) for text in texts]
    assert [row["index"] for row in body["results"]] == np.argsort(scores)[::-1].tolist()
    for row in body["results"]:
        assert row["relevance_score"] == pytest.approx(scores[row["index"]], abs=1e-6)
        if path != "/v2/rerank":
            assert row["document"] == {"text": texts[row["index"]]}
    assert body["data"] == body["results"]
    assert body["usage"]["total_tokens"] == 5 + 6 + 5 + 5
    first = await post(api, path, {"query": "alpha", "documents": documents, "top_n": 1})
    assert len(first.json()["results"]) == 1
    every = await post(api, path, {"query": "alpha", "documents": documents, "top_n": 0})
    assert len(every.json()["results"]) == 3
    if path != "/v2/rerank":
        voyage = {"query": "alpha", "documents": ["b", "c"], "top_k": 1, "truncation": True}
        assert "document" not in (await post(api, path, voyage)).json()["data"][0]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": ["a"]}, "query"),
        ({"query": "q", "documents": []}, "documents"),
        ({"query": "q", "documents": "a"}, "documents"),
        ({"query": "q", "documents": ["a", 7]}, "documents[1]"),
        ({"query": "q", "documents": [{"title": "a"}]}, "documents[0]"),
        ({"query": "q", "documents": ["a"], "rank_fields": 7}, "rank_fields"),
        ({"query": "q", "documents": ["a"], "top_n": -1}, "top_n"),
        ({"query": "q", "documents": ["a"], "max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        ({"query": "q", "documents": ["a", LONG], "truncation": False}, "documents[1]"),
        ({"query": LONG, "documents": ["a"], "truncation": False}, "query"),
    ],
)
async def test_rerank_refuses(api: Api, body: dict[str, Any], param: str) -> None:
    """Errors name the field, and the item of a list."""
    answer = await api.client.post("/v1/rerank", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_rank_fields_and_caps(api: Api) -> None:
    """Cohere v1's objects are read by `rank_fields`, and `max_tokens_per_doc` cuts each document."""
    documents = [{"title": "alpha", "body": "beta", "text": "red"}]
    body = {"query": "q", "documents": documents, "rank_fields": ["title", "body"]}
    answer = (await post(api, "/v1/rerank", body)).json()
    assert answer["results"][0]["document"] == {"text": "alpha\nbeta"}
    short = {"query": "alpha", "documents": ["alpha beta gamma"], "max_tokens_per_doc": 5}
    score = (await post(api, "/v1/rerank", short)).json()["results"][0]["relevance_score"]
    query, cut = unit_vector(api, "query : alpha"), unit_vector(api, "passage : alpha")
    assert score == pytest.approx(np.dot(query, cut), abs=1e-6)
