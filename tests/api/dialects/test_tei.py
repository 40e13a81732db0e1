"""Text Embeddings Inference: exact answers of its own routes."""

from typing import Any

import httpx
import numpy as np
import pytest
from nestvec.engine.text.token_report import describe_tokens

from tests.api.applications import Api, MakeApi, unit_vector
from tests.support.fakes import fake_states

LONG = "alpha beta gamma red " * 10


async def post(api: Api, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    """POST a body, and return the answer, which must be good."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await api.client.post(path, json=body, headers=named)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("path", ["/embed", "/", "/invocations"])
async def test_embed(api: Api, path: str) -> None:
    """An answer is always a list of lists, and its times are whole milliseconds."""
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
    """Token ids may be one input, several, or stand beside texts; the caller brings the special tokens."""
    ids = [t.id for t in describe_tokens(api.served.tokenizer, "beta", adds_special_tokens=True)]
    expected = unit_vector(api, "beta")
    for inputs in (ids, [ids], [float(i) for i in ids]):
        vectors = (await post(api, "/embed", {"inputs": inputs})).json()
        np.testing.assert_allclose(vectors, [expected], atol=1e-6)
    mixed = (await post(api, "/embed", {"inputs": ["alpha", ids]})).json()
    np.testing.assert_allclose(mixed, [unit_vector(api, "alpha"), expected], atol=1e-6)
    prompted = (await post(api, "/embed", {"inputs": [ids], "prompt_name": "query"})).json()
    np.testing.assert_allclose(prompted, [unit_vector(api, "query : beta")], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "kept_end"),
    [
        ({}, "start"),
        ({"truncate": True, "truncation_direction": "Right"}, "start"),
        ({"truncate": True, "truncation_direction": "left"}, "end"),
        ({"truncation_direction": "Left"}, "end"),
        ({"truncation_direction": None}, "start"),
    ],
)
async def test_truncation(api: Api, options: dict[str, Any], kept_end: str) -> None:
    """What is too long is cut without being asked for, as TEI does since 1.9."""
    answer = await post(api, "/embed", {"inputs": LONG, **options})
    words = LONG.split()
    text = " ".join(words[:14] if kept_end == "start" else words[-14:])
    np.testing.assert_allclose(answer.json(), [unit_vector(api, text)], atol=1e-6)
    assert answer.headers["x-embed-truncated"] == "1"


async def test_prompts_and_raw_vectors(api: Api) -> None:
    """`prompt_name` selects one of the model's prompts, and `normalize: false` gives the raw vector."""
    answer = await post(api, "/embed", {"inputs": "alpha", "prompt_name": "document"})
    np.testing.assert_allclose(answer.json(), [unit_vector(api, "passage : alpha")], atol=1e-6)
    raw = (await post(api, "/embed", {"inputs": "alpha", "normalize": False})).json()[0]
    assert abs(np.linalg.norm(raw) - 1) > 1e-3
    np.testing.assert_allclose(raw / np.linalg.norm(raw), unit_vector(api, "alpha"), atol=1e-6)


async def test_embed_all(api: Api) -> None:
    """`/embed_all` gives a raw vector for each token."""
    answer = (await post(api, "/embed_all", {"inputs": ["alpha", "beta gamma"]})).json()
    ids = [
        t.id for t in describe_tokens(api.served.tokenizer, "beta gamma", adds_special_tokens=True)
    ]
    assert len(answer[0]) == 3
    np.testing.assert_allclose(answer[1], fake_states(ids), atol=1e-6)


@pytest.mark.parametrize("path", ["/similarity", "/"])
async def test_similarity(api: Api, path: str) -> None:
    """Cosines come in the order of the sentences, and `parameters` takes the options of embedding."""
    sentences = {"source_sentence": "alpha", "sentences": ["beta", "alpha"]}
    answer = (await post(api, path, {"inputs": sentences, "parameters": None})).json()
    near = np.dot(unit_vector(api, "alpha"), unit_vector(api, "beta"))
    np.testing.assert_allclose(answer, [near, 1], atol=1e-6)
    prompted = {"inputs": sentences, "parameters": {"prompt_name": "query"}}
    other = (await post(api, path, prompted)).json()
    near = np.dot(unit_vector(api, "query : alpha"), unit_vector(api, "query : beta"))
    np.testing.assert_allclose(other, [near, 1], atol=1e-6)
    long = {"inputs": {**sentences, "source_sentence": LONG}, "parameters": {"truncate": False}}
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
    """Wrong sentences are refused in TEI's shape."""
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
    """A model of another kind is 424, and the error names the kind that is needed."""
    answer = await api.client.post(path, json=body)
    assert answer.status_code == 424
    assert needed in answer.json()["error"]
    assert answer.json()["error_type"] == "Backend"


async def test_tokenize_and_decode(api: Api) -> None:
    """Tokens of texts have their places in characters, and their ids decode to the texts."""
    described = (await post(api, "/tokenize", {"inputs": ["alpha red", ""]})).json()
    assert [len(tokens) for tokens in described] == [4, 2]
    assert list(described[0][1]) == ["id", "text", "special", "start", "stop"]
    assert [(t["text"], t["start"]) for t in described[0]] == [
        ("[CLS]", None),
        ("alpha", 0),
        ("red", 6),
        ("[SEP]", None),
    ]
    bare = await post(api, "/tokenize", {"inputs": "alpha", "add_special_tokens": False})
    assert len(bare.json()[0]) == 1
    prompted = (await post(api, "/tokenize", {"inputs": "alpha", "prompt_name": "query"})).json()
    assert [t["text"] for t in prompted[0]][1:4] == ["query", ":", "alpha"]
    ids = [token["id"] for token in described[0]]
    assert (await post(api, "/decode", {"ids": ids})).json() == ["alpha red"]
    both = {"ids": [ids, ids[:2]], "skip_special_tokens": False}
    assert (await post(api, "/decode", both)).json() == ["[CLS] alpha red [SEP]", "[CLS] alpha"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
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
async def test_bad_fields_are_named(api: Api, path: str, body: dict[str, Any], param: str) -> None:
    """Errors name the field, and the item of a list."""
    answer = await api.client.post(path, json=body)
    assert answer.status_code == 422, answer.text
    assert param in answer.json()["error"]


async def test_texts_to_tokenize_are_bounded(make_api: MakeApi) -> None:
    """Texts of too many tokens are refused, for an answer holds some hundred bytes a token."""
    api = make_api()
    answer = await api.client.post("/tokenize", json={"inputs": "a " * 700_000})
    assert answer.status_code == 422
    assert "too many to describe" in answer.json()["error"]


async def test_vertex(api: Api) -> None:
    """`/vertex` answers several bodies of other routes in one."""
    sentences = {"source_sentence": "alpha", "sentences": ["alpha"]}
    body = {"instances": [{"inputs": "alpha", "dimensions": 2}, {"inputs": sentences}]}
    predictions = (await post(api, "/vertex", body)).json()["predictions"]
    np.testing.assert_allclose(predictions[0], [unit_vector(api, "alpha", 2)], atol=1e-6)
    np.testing.assert_allclose(predictions[1], [1], atol=1e-6)
    assert (await api.client.post("/vertex", json={"instances": 7})).status_code == 422


async def test_info(make_api: MakeApi) -> None:
    """`/info` has TEI's keys, and is behind the key."""
    api = make_api(api_keys=["k"])
    assert (await api.client.get("/info")).status_code == 401
    info = (await api.client.get("/info", headers={"x-api-key": "k"})).json()
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["max_input_length"], info["auto_truncate"]) == (16, True)
    assert info["max_client_batch_size"] >= 32
