"""Optional fields that hold the empty string are absent, in every dialect; texts are texts."""

from typing import Any

import pytest

from tests.api.applications import Api, MakeApi
from tests.api.http.test_auth import _paths

TEXTS: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": ["alpha", "beta"]},
    "/embed": {"inputs": ["alpha", "beta"]},
    "/embed_all": {"inputs": ["alpha"]},
    "/tokenize": {"inputs": ["alpha"]},
    "/v2/embed": {"texts": ["alpha"], "model": "fake-model"},
    "/v1/embed": {"texts": ["alpha"], "model": "fake-model"},
    "/api/embed": {"input": ["alpha"]},
    "/api/embeddings": {"prompt": "alpha"},
    "/pooling": {"input": ["alpha"]},
    "/v1/similarity": {"left": ["alpha"], "right": ["beta"]},
    "/v1/chunk": {"input": ["alpha. beta"]},
    "/v1/rescore": {"query": "alpha", "documents": ["beta", "gamma"]},
    "/v1/classify": {"input": ["alpha"], "labels": ["beta", "gamma"]},
}
OPTIONS = (
    *("model", "user", "dimensions", "encoding_format", "normalize", "truncate", "prompt_name"),
    *("input_type", "task", "instruction", "examples", "output_dtype", "layers", "map"),
    *("late_chunking", "truncate_prompt_tokens", "truncation_side", "add_special_tokens"),
    *("embed_dtype", "endianness", "truncation_direction", "output_dimension", "embedding_types"),
    *("max_tokens", "options", "top_n", "return_documents", "pool_factor", "truncation"),
    *("embedding_type", "normalized", "encoding", "explain"),
    *("template", "multi_label", "alpha"),
)


def told(answer: Any) -> Any:
    """Return what an answer says of its texts: without times and ids."""
    body = answer.json()
    if isinstance(body, dict):
        for name in ("id", "created", "total_duration", "load_duration"):
            body.pop(name, None)
    return body


@pytest.mark.parametrize("path", TEXTS)
async def test_an_empty_option_is_no_option(api: Api, path: str) -> None:
    """Each option, sent empty, changes nothing: the answer is the one without it."""
    plain = await api.client.post(path, json=TEXTS[path])
    assert plain.status_code == 200, plain.text
    voyages, jinas = ("truncation", "output_dimension"), ("embedding_type", "normalized")
    for name in OPTIONS:
        # These tell another dialect on the shared path, whatever they hold.
        if path == "/v1/embeddings" and name in (*voyages, *jinas):
            continue
        answer = await api.client.post(path, json={**TEXTS[path], name: ""})
        assert answer.status_code == 200, (name, answer.text)
        assert told(answer) == told(plain), name


@pytest.mark.parametrize(
    "extra",
    [
        {"truncation": "", "input_type": "", "output_dimension": "", "output_dtype": ""},
        {"embedding_type": "", "task": "", "normalized": "", "dimensions": "", "late_chunking": ""},
        {"truncation": True, "encoding_format": ""},
    ],
)
async def test_of_the_dialects_of_the_shared_path_too(api: Api, extra: dict[str, Any]) -> None:
    """Voyage's and Jina's options on /v1/embeddings are absent when they are empty."""
    body = {"input": ["alpha", "beta"], "model": "fake-model"}
    plain, answer = await api.embed(body), await api.embed({**body, **extra})
    assert answer.status_code == 200, answer.text
    vectors = [row["embedding"] for row in answer.json()["data"]]
    assert vectors == [row["embedding"] for row in plain.json()["data"]]


async def test_an_empty_text_is_a_text(api: Api, make_api: MakeApi) -> None:
    """Texts, queries and a literal prompt may be empty; a prompt that is empty stands for none."""
    assert (await api.embed({"input": ""})).status_code == 200
    query = {"query": "", "documents": ["a", "b"]}
    assert (await api.client.post("/v1/rescore", json=query)).status_code == 200
    source = {"inputs": {"source_sentence": "", "sentences": ["a"]}}
    assert (await api.client.post("/similarity", json=source)).status_code == 200
    plain = (await api.embed({"input": "alpha"})).json()["data"]
    assert (await api.embed({"input": "alpha", "prompt": ""})).json()["data"] == plain
    assert len(_paths(make_api())) > 40


@pytest.mark.parametrize(
    ("path", "field", "param"),
    [
        ("/v1/embeddings", "input", "input[0]"),
        ("/embed", "inputs", None),
        ("/pooling", "input", "input[0]"),
    ],
)
async def test_a_nested_list_of_texts_is_told_as_one(
    api: Api, path: str, field: str, param: str | None
) -> None:
    """[["a", "b"]] is told as a nested list of texts, not as ids that are no integers."""
    answer = await api.client.post(path, json={field: [["very private", "b"]]})
    assert answer.status_code in (400, 422)
    assert "must not be nested" in answer.text
    assert "very private" not in answer.text
    if param is not None:
        assert answer.json()["error"]["param"] == param
    mixed = await api.client.post(path, json={field: [["a", 1]]})
    assert "token ids must be integers" in mixed.text
