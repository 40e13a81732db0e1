"""Text Embeddings Inference: its own routes, to the key."""

from typing import Any

import httpx
import numpy as np
import pytest

from tests.api.applications import Api, MakeApi, unit_vector
from tests.support.fakes import fake_states

LONG = "alpha beta gamma red " * 10


async def post(api: Api, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    """An answer that must be good."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await api.client.post(path, json=body, headers=named)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("path", ["/embed", "/", "/invocations"])
async def test_embed(api: Api, path: str) -> None:
    """Always a list of lists; times in whole milliseconds."""
    answer = await post(api, path, {"inputs": "alpha", "dimensions": None, "truncate": None})
    np.testing.assert_allclose(answer.json(), [unit_vector(api, "alpha")], atol=1e-6)
    two = await post(api, path, {"inputs": ["alpha", "beta gamma"], "dimensions": 2})
    expected = [unit_vector(api, text, 2) for text in ("alpha", "beta gamma")]
    np.testing.assert_allclose(two.json(), expected, atol=1e-6)
    assert (two.headers["x-compute-type"], two.headers["x-compute-tokens"]) == ("cpu", "7")
    assert two.headers["x-compute-characters"] == "15"
    for name in ("compute", "total", "tokenization", "queue", "inference"):
        assert two.headers[f"x-{name}-time"].isdigit()


async def test_token_ids_are_the_models_own(api: Api) -> None:
    """One input, several, or beside texts; special tokens are the caller's business."""
    ids = [t.id for t in api.served.tokenizer.describe("beta", adds_special=True)]
    expected = unit_vector(api, "beta")
    for inputs in (ids, [ids], [float(i) for i in ids]):
        found = (await post(api, "/embed", {"inputs": inputs})).json()
        np.testing.assert_allclose(found, [expected], atol=1e-6)
    mixed = (await post(api, "/embed", {"inputs": ["alpha", ids]})).json()
    np.testing.assert_allclose(mixed, [unit_vector(api, "alpha"), expected], atol=1e-6)
    prompted = (await post(api, "/embed", {"inputs": [ids], "prompt_name": "query"})).json()
    np.testing.assert_allclose(prompted, [unit_vector(api, "query : beta")], atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({}, "start"),
        ({"truncate": True, "truncation_direction": "Right"}, "start"),
        ({"truncate": True, "truncation_direction": "left"}, "end"),
        ({"truncation_direction": "Left"}, "end"),
        ({"truncation_direction": None}, "start"),
    ],
)
async def test_truncation(api: Api, asked: dict[str, Any], kept: str) -> None:
    """Unasked since 1.9."""
    answer = await post(api, "/embed", {"inputs": LONG, **asked})
    words = LONG.split()
    text = " ".join(words[:14] if kept == "start" else words[-14:])
    np.testing.assert_allclose(answer.json(), [unit_vector(api, text)], atol=1e-6)
    assert answer.headers["x-embed-truncated"] == "1"


async def test_prompts_and_raw_vectors(api: Api) -> None:
    """By the model's own names."""
    answer = await post(api, "/embed", {"inputs": "alpha", "prompt_name": "document"})
    np.testing.assert_allclose(answer.json(), [unit_vector(api, "passage : alpha")], atol=1e-6)
    raw = (await post(api, "/embed", {"inputs": "alpha", "normalize": False})).json()[0]
    assert abs(np.linalg.norm(raw) - 1) > 1e-3
    np.testing.assert_allclose(raw / np.linalg.norm(raw), unit_vector(api, "alpha"), atol=1e-6)


async def test_embed_all(api: Api) -> None:
    """One vector a token, raw."""
    answer = (await post(api, "/embed_all", {"inputs": ["alpha", "beta gamma"]})).json()
    ids = [t.id for t in api.served.tokenizer.describe("beta gamma", adds_special=True)]
    assert len(answer[0]) == 3
    np.testing.assert_allclose(answer[1], fake_states(ids), atol=1e-6)


@pytest.mark.parametrize("path", ["/similarity", "/"])
async def test_similarity(api: Api, path: str) -> None:
    """Cosines in the order of the sentences; parameters as for embedding."""
    given = {"source_sentence": "alpha", "sentences": ["beta", "alpha"]}
    answer = (await post(api, path, {"inputs": given, "parameters": None})).json()
    near = np.dot(unit_vector(api, "alpha"), unit_vector(api, "beta"))
    np.testing.assert_allclose(answer, [near, 1], atol=1e-6)
    prompted = {"inputs": given, "parameters": {"prompt_name": "query"}}
    other = (await post(api, path, prompted)).json()
    near = np.dot(unit_vector(api, "query : alpha"), unit_vector(api, "query : beta"))
    np.testing.assert_allclose(other, [near, 1], atol=1e-6)
    long = {"inputs": {**given, "source_sentence": LONG}, "parameters": {"truncate": False}}
    assert (await api.client.post(path, json=long)).status_code == 422


@pytest.mark.parametrize(
    "wrong",
    [
        {"inputs": {"sentences": ["a"]}},
        {"inputs": {"source_sentence": "a"}},
        {"inputs": {"source_sentence": "a", "sentences": []}},
        {"inputs": {"source_sentence": "a", "sentences": [7]}},
        {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": [1]},
    ],
)
async def test_wrong_sentences(api: Api, wrong: dict[str, Any]) -> None:
    """Refused in TEI's shape."""
    answer = await api.client.post("/similarity", json=wrong)
    assert answer.status_code in (400, 422)
    assert set(answer.json()) == {"error", "error_type"}


@pytest.mark.parametrize(
    ("path", "body", "needed"),
    [
        ("/rerank", {"query": "a", "texts": ["b"]}, "cross-encoder"),
        ("/", {"query": "a", "texts": ["b"]}, "cross-encoder"),
        ("/predict", {"inputs": "a"}, "classifier"),
        ("/embed_sparse", {"inputs": "a"}, "SPLADE"),
    ],
)
async def test_other_models_are_named(
    api: Api, path: str, body: dict[str, Any], needed: str
) -> None:
    """424, as TEI answers for models of another kind."""
    answer = await api.client.post(path, json=body)
    assert answer.status_code == 424
    assert needed in answer.json()["error"]
    assert answer.json()["error_type"] == "Backend"


async def test_tokenize_and_decode(api: Api) -> None:
    """There and back."""
    found = (await post(api, "/tokenize", {"inputs": ["alpha red", ""]})).json()
    assert [len(tokens) for tokens in found] == [4, 2]
    assert list(found[0][1]) == ["id", "text", "special", "start", "stop"]
    assert [(t["text"], t["start"]) for t in found[0]] == [
        ("[CLS]", None),
        ("alpha", 0),
        ("red", 6),
        ("[SEP]", None),
    ]
    bare = await post(api, "/tokenize", {"inputs": "alpha", "add_special_tokens": False})
    assert len(bare.json()[0]) == 1
    prompted = (await post(api, "/tokenize", {"inputs": "alpha", "prompt_name": "query"})).json()
    assert [t["text"] for t in prompted[0]][1:4] == ["query", ":", "alpha"]
    ids = [token["id"] for token in found[0]]
    assert (await post(api, "/decode", {"ids": ids})).json() == ["alpha red"]
    both = {"ids": [ids, ids[:2]], "skip_special_tokens": False}
    assert (await post(api, "/decode", both)).json() == ["[CLS] alpha red [SEP]", "[CLS] alpha"]


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        ("/decode", {"ids": [[5], [10**9]]}, "ids[1]"),
        ("/decode", {"ids": ["a"]}, "ids"),
        ("/decode", {}, "ids"),
        ("/decode", {"ids": [[]]}, "ids"),
        ("/tokenize", {"inputs": ["a", 7]}, "inputs[1]"),
        ("/tokenize", {"inputs": "a", "prompt_name": "none"}, "prompt_name"),
        ("/embed", {"inputs": ["a", [10**9]]}, "inputs[1]"),
        ("/embed", {"inputs": [-1]}, "inputs"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, "truncation_direction"),
        ("/embed", {"inputs": "a", "truncate": "yes"}, "truncate"),
        ("/embed", {"inputs": "a", "prompt_name": "none"}, "prompt_name"),
    ],
)
async def test_bad_fields_are_named(api: Api, path: str, body: dict[str, Any], place: str) -> None:
    """With the item's place."""
    answer = await api.client.post(path, json=body)
    assert answer.status_code == 422, answer.text
    assert place in answer.json()["error"]


async def test_texts_to_tokenize_are_bounded(make_api: MakeApi) -> None:
    """An answer holds some hundred bytes a token."""
    api = make_api()
    answer = await api.client.post("/tokenize", json={"inputs": "a " * 700_000})
    assert answer.status_code == 422
    assert "too many to describe" in answer.json()["error"]


async def test_vertex(api: Api) -> None:
    """Several native bodies in one."""
    given = {"source_sentence": "alpha", "sentences": ["alpha"]}
    body = {"instances": [{"inputs": "alpha", "dimensions": 2}, {"inputs": given}]}
    found = (await post(api, "/vertex", body)).json()["predictions"]
    np.testing.assert_allclose(found[0], [unit_vector(api, "alpha", 2)], atol=1e-6)
    np.testing.assert_allclose(found[1], [1], atol=1e-6)
    assert (await api.client.post("/vertex", json={"instances": 7})).status_code == 422


async def test_info(make_api: MakeApi) -> None:
    """TEI's keys; behind the key."""
    api = make_api(api_keys=["k"])
    assert (await api.client.get("/info")).status_code == 401
    found = (await api.client.get("/info", headers={"x-api-key": "k"})).json()
    assert found["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (found["max_input_length"], found["auto_truncate"]) == (16, True)
    assert found["max_client_batch_size"] >= 32
