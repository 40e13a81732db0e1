"""vLLM's fields of `/v1/embeddings`, its raw bytes, pooling and scores."""

import base64
import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from nestvec.engine.text.token_report import describe_tokens

from tests.api.applications import Api, MakeApi, unit_vector
from tests.support.fakes import fake_states
from tests.support.served import SPEC, ServedOptions

LONG = "alpha beta gamma red " * 10


async def values(api: Api, **body: Any) -> list[list[float]]:
    """Return all vectors of an answer, which must be good."""
    answer = await api.embed(body)
    assert answer.status_code == 200, answer.text
    return [item["embedding"] for item in answer.json()["data"]]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"truncate_prompt_tokens": 4}, "alpha beta"),
        ({"truncate_prompt_tokens": -1}, "alpha beta gamma red " * 3 + "alpha beta"),
        ({"truncate_prompt_tokens": 4, "truncation_side": "right"}, "alpha beta"),
        ({"truncate_prompt_tokens": 4, "truncation_side": "left"}, "gamma red"),
        ({"truncate": "start", "truncate_prompt_tokens": 3}, "red"),
    ],
)
async def test_truncation(api: Api, options: dict[str, Any], text: str) -> None:
    """`truncate_prompt_tokens` counts special tokens too, and `truncation_side` is the side that is cut off."""
    vectors = await values(api, input=LONG, **options)
    np.testing.assert_allclose(vectors[0], unit_vector(api, text), atol=1e-6)


@pytest.mark.parametrize("wrong", [0, -2, 2, "4"])
async def test_no_room_for_a_token(api: Api, wrong: Any) -> None:
    """A limit that leaves no room beside the two special tokens is refused."""
    answer = await api.embed({"input": "alpha", "truncate_prompt_tokens": wrong})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "truncate_prompt_tokens"


@pytest.mark.parametrize("path", ["/v1/embeddings", "/pooling"])
async def test_a_limit_beyond_the_window_is_refused(api: Api, path: str) -> None:
    """A limit beyond the model's window is refused, as vLLM does; the window itself, and -1, are taken."""
    for tokens, status in ((17, 400), (16, 200), (-1, 200)):
        body = {"input": "alpha", "truncate_prompt_tokens": tokens}
        answer = await api.client.post(path, json=body)
        assert answer.status_code == status
        if status != 200:
            error = answer.json()["error"]
            assert error["param"] == "truncate_prompt_tokens"
            assert "'truncate_prompt_tokens' (17) is greater than the model's" in error["message"]
            assert "16 tokens" in error["message"]


async def test_other_vendors_limits_may_be_wider(api: Api) -> None:
    """Cohere's and Ollama's limits beyond the window are the window, as there."""
    cohere = await api.client.post("/v2/embed", json={"texts": ["alpha"], "max_tokens": 128_000})
    ollama = await api.client.post(
        "/api/embed", json={"input": "alpha", "options": {"num_ctx": 8192}}
    )
    assert (cohere.status_code, ollama.status_code) == (200, 200)


async def test_without_its_field_long_inputs_are_refused(api: Api) -> None:
    """Without `truncate_prompt_tokens` long inputs are refused, as in vLLM and OpenAI."""
    assert (await api.embed({"input": LONG})).status_code == 400


async def test_special_tokens_and_activation(api: Api) -> None:
    """Special tokens and normalization can each be switched off."""
    (vector,) = await values(api, input="alpha beta", add_special_tokens=False)
    ids = [
        t.id for t in describe_tokens(api.served.tokenizer, "alpha beta", adds_special_tokens=False)
    ]
    raw = fake_states(ids).mean(axis=0)
    np.testing.assert_allclose(vector, raw / np.linalg.norm(raw), atol=1e-6)
    (plain,) = await values(api, input="alpha beta", add_special_tokens=False, use_activation=False)
    np.testing.assert_allclose(plain, raw, atol=1e-6)


@pytest.mark.parametrize(
    ("word", "dtype"),
    [
        ("float32", "f4"),
        ("float16", "f2"),
        ("bfloat16", "u2"),
        ("fp8_e4m3", "u1"),
        ("fp8_e5m2", "u1"),
    ],
)
@pytest.mark.parametrize("order", ["little", "native", "big"])
async def test_dtypes_of_base64(api: Api, word: str, dtype: str, order: str) -> None:
    """base64 holds `embed_dtype` in the byte order asked for, and lists stay float32."""
    options = {"input": "alpha", "embed_dtype": word, "endianness": order}
    (numbers,) = await values(api, **options)
    (packed,) = await values(api, **options, encoding_format="base64")
    raw = np.frombuffer(base64.b64decode(str(packed)), (">" if order == "big" else "<") + dtype)
    assert len(raw) == len(numbers) == 8
    if word == "bfloat16":
        wide = raw.astype("<u4") << 16
        np.testing.assert_allclose(wide.view("<f4"), numbers, rtol=0.01)
    if word in ("float32", "float16"):
        np.testing.assert_allclose(raw, numbers, atol=1e-3 if word == "float16" else 0)


async def test_raw_bytes(api: Api) -> None:
    """Raw bytes are the vectors end to end in input order, and a header describes them."""
    answer = await api.embed(
        {"input": ["alpha", "beta"], "encoding_format": "bytes", "dimensions": 4}
    )
    assert answer.headers["content-type"] == "application/octet-stream"
    described = json.loads(answer.headers["metadata"])
    assert [(d["start"], d["end"], d["shape"]) for d in described["data"]] == [
        (0, 16, [4]),
        (16, 32, [4]),
    ]
    assert described["data"][0]["embed_dtype"] == "float32"
    assert described["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    vectors = np.frombuffer(answer.content, "<f4").reshape(2, 4)
    np.testing.assert_allclose(vectors[1], unit_vector(api, "beta", 4), atol=1e-6)
    bare = await api.embed({"input": ["alpha"] * 65, "encoding_format": "bytes_only"})
    assert "metadata" not in bare.headers
    assert len(bare.content) == 65 * 32
    many = await api.embed({"input": ["alpha"] * 65, "encoding_format": "bytes"})
    assert (many.status_code, many.json()["error"]["param"]) == (400, "encoding_format")


async def test_chat_messages_are_refused(api: Api) -> None:
    """Chat messages are refused, since no model here has a template."""
    answer = await api.embed({"messages": [{"role": "user", "content": "alpha"}]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported")


async def test_pooling(api: Api) -> None:
    """`/pooling` gives a vector for each input or token, and refuses tasks of other models."""
    body = {"input": ["alpha", "beta gamma"], "dimensions": 4}
    for task in (None, "embed", "encode"):
        answer = (await api.client.post("/pooling", json={**body, "task": task})).json()
        assert [item["object"] for item in answer["data"]] == ["pooling"] * 2
        np.testing.assert_allclose(
            answer["data"][1]["data"], unit_vector(api, "beta gamma", 4), atol=1e-6
        )
    tokens = (await api.client.post("/pooling", json={**body, "task": "token_embed"})).json()
    assert [np.shape(item["data"]) for item in tokens["data"]] == [(3, 4), (4, 4)]
    packed = {**body, "task": "token_embed", "encoding_format": "base64"}
    answer = (await api.client.post("/pooling", json=packed)).json()
    raw = np.frombuffer(base64.b64decode(answer["data"][1]["data"]), "<f4").reshape(4, 4)
    np.testing.assert_allclose(raw, tokens["data"][1]["data"], atol=1e-6)
    refused = await api.client.post("/pooling", json={**body, "task": "classify"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "task")
    as_bytes = await api.client.post("/pooling", json={**body, "encoding_format": "bytes"})
    assert as_bytes.status_code == 400


@pytest.mark.parametrize("names", [("text_1", "text_2"), ("data_1", "data_2")])
async def test_scores(api: Api, names: tuple[str, str]) -> None:
    """Scores are of one text against many, or pair by pair, in input order."""
    first_field, second_field = names
    answer = await api.client.post(
        "/score", json={first_field: "alpha", second_field: ["beta", "alpha"]}
    )
    body = answer.json()
    assert answer.headers["x-embed-score"] == "cosine"
    assert [item["index"] for item in body["data"]] == [0, 1]
    first = np.dot(unit_vector(api, "alpha"), unit_vector(api, "beta"))
    np.testing.assert_allclose([d["score"] for d in body["data"]], [first, 1], atol=1e-6)
    pairs = {first_field: ["alpha", "beta"], second_field: ["alpha", "beta"]}
    answer = await api.client.post("/v1/score", json=pairs)
    np.testing.assert_allclose([d["score"] for d in answer.json()["data"]], [1, 1], atol=1e-6)


async def test_scores_of_queries_use_prompts(api: Api) -> None:
    """Queries and documents each get the model's own prompt."""
    answer = await api.client.post("/score", json={"queries": "alpha", "documents": ["alpha"]})
    query, document = unit_vector(api, "query : alpha"), unit_vector(api, "passage : alpha")
    assert answer.json()["data"][0]["score"] == pytest.approx(np.dot(query, document), abs=1e-6)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"text_1": ["a", "b"], "text_2": ["c"]}, "text_1"),
        ({"text_1": "a"}, "text_1"),
        ({"text_1": "a", "text_2": [7]}, "text_2[0]"),
        ({"text_1": "a", "text_2": []}, "text_2"),
        ({"text_1": "a", "text_2": ["b", LONG]}, "text_2[1]"),
        ({"text_1": LONG, "text_2": ["b"]}, "text_1"),
        ({"queries": "a", "documents": ["b", LONG]}, "documents[1]"),
    ],
)
async def test_bad_pairs(make_api: MakeApi, body: dict[str, Any], param: str) -> None:
    """Errors name the field and the item of a list, also where one call embeds both sides."""
    for prompts in (SPEC.prompts, {}):
        api = make_api(ServedOptions(spec=dataclasses.replace(SPEC, prompts=prompts)))
        answer = await api.client.post("/score", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
