"""The OpenAI dialect: answers, the grammar of `input`, extensions, models."""

import base64
from typing import Any

import httpx
import numpy as np
import pytest
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import Truncation

from tests.api.applications import Api, MakeApi, unit_vector
from tests.support.fakes import fake_vector
from tests.support.served import SPEC

LONG = "alpha " * 40


def vectors(answer: httpx.Response) -> list[list[float]]:
    """Return all vectors of an answer, which must be good."""
    assert answer.status_code == 200, answer.text
    return [item["embedding"] for item in answer.json()["data"]]


async def test_the_whole_answer(api: Api) -> None:
    """An answer has exactly OpenAI's keys, in input order, with tokens and headers."""
    answer = await api.embed(
        {"input": ["alpha", "beta gamma"], "model": "org/fake-model", "user": "u"}
    )
    body = answer.json()
    assert list(body) == ["object", "data", "model", "usage"]
    assert (body["object"], body["model"]) == ("list", "org/fake-model")
    assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert [list(item) for item in body["data"]] == [["object", "index", "embedding"]] * 2
    assert [(item["object"], item["index"]) for item in body["data"]] == [
        ("embedding", 0),
        ("embedding", 1),
    ]
    np.testing.assert_allclose(
        vectors(answer), [unit_vector(api, "alpha"), unit_vector(api, "beta gamma")], atol=1e-6
    )
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-embed-space"] == SPEC.space
    assert answer.headers["openai-processing-ms"].isdigit()
    assert "x-embed-truncated" not in answer.headers


async def test_base64_is_the_float_answer_to_the_bit(api: Api) -> None:
    """base64 holds the bits of the float answer: little-endian float32, standard alphabet."""
    floats = vectors(await api.embed({"input": ["alpha", "beta"]}))
    packed = vectors(await api.embed({"input": ["alpha", "beta"], "encoding_format": "base64"}))
    for row, text in zip(floats, packed, strict=True):
        decoded = np.frombuffer(base64.b64decode(str(text), validate=True), "<f4")
        np.testing.assert_array_equal(decoded, np.asarray(row, np.float32))


@pytest.mark.parametrize(
    ("word", "dtype", "stored"),
    [("base64_int8", "int8", np.int8), ("base64_binary", "ubinary", np.uint8)],
)
async def test_perplexitys_words_for_base64(
    api: Api, word: str, dtype: str, stored: type[np.generic]
) -> None:
    """They say both the form and the dtype; another dtype beside them is refused."""
    body = {"input": ["alpha", "beta"], "dimensions": 8}
    numbers = vectors(await api.embed({**body, "output_dtype": dtype}))
    packed = vectors(await api.embed({**body, "encoding_format": word}))
    for row, text in zip(numbers, packed, strict=True):
        decoded = np.frombuffer(base64.b64decode(str(text), validate=True), stored)
        np.testing.assert_array_equal(decoded, row)
    answer = await api.client.post(
        "/v1/embeddings", json={**body, "encoding_format": word, "output_dtype": "float16"}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "output_dtype")


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/embeddings", "/v1/embeddings/", "/v1/v1/embeddings"]
)
async def test_paths(api: Api, path: str) -> None:
    """The route is served with and without /v1, with a trailing slash, and with a doubled prefix."""
    assert (await api.client.post(path, json={"input": "alpha"})).status_code == 200


@pytest.mark.parametrize(
    ("value", "count", "tokens"),
    [
        ("alpha", 1, 3),
        ("", 1, 2),
        (["", ""], 2, 4),
        (["alpha"], 1, 3),
        ([5], 1, 1),
        ([5, 6.0], 1, 2),
        ([[5, 6]], 1, 2),
        ([[5], [6, 7]], 2, 3),
        ([["a"] * 0 or "x"], 1, 3),
        (["\x00", "🙂", "日本"], 3, None),
    ],
)
async def test_the_grammar_of_input(
    make_api: MakeApi, value: Any, count: int, tokens: int | None
) -> None:
    """`input` may be a text, texts, ids or lists of ids; a flat list of ids is one input."""
    api = make_api(token_input="model")
    answer = await api.embed({"input": value})
    assert len(vectors(answer)) == count
    if tokens is not None:
        assert answer.json()["usage"]["total_tokens"] == tokens


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([], "input"),
        (None, "input"),
        (3, "input"),
        ({}, "input"),
        (["a", 1], "input[1]"),
        (["a", None], "input[1]"),
        (["a", ["b"]], "input[1]"),
        ([1, "a"], "input"),
        ([1, True], "input"),
        ([1, 2.5], "input"),
        ([-1], "input"),
        ([[]], "input[0]"),
        ([[1], []], "input[1]"),
        ([[1], [[2]]], "input[1]"),
        ([[1], "a"], "input[1]"),
        ([[1], [100_000]], "input[1]"),
        ([100_000], "input"),
        ([True], "input[0]"),
        (["a"] * 2049, "input"),
        ([[1]] * 2049, "input"),
    ],
    ids=repr,
)
async def test_wrong_inputs_name_their_place(make_api: MakeApi, value: Any, param: str) -> None:
    """A wrong input is 400 in OpenAI's shape, and names the item's index."""
    api = make_api(token_input="model")
    answer = await api.embed({"input": value})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (
        400,
        param,
        "invalid_request_error",
    )
    assert set(error) == {"message", "type", "param", "code"}


async def test_2048_inputs_are_taken(api: Api) -> None:
    """The default limit of inputs is OpenAI's own."""
    assert len(vectors(await api.embed({"input": ["a"] * 2048}))) == 2048


async def test_a_million_items_are_refused_at_once(make_api: MakeApi) -> None:
    """A million items are refused at once, whatever they are."""
    api = make_api()
    for items in (["a"] * 1_000_000, [[1]] * 1_000_000):
        answer = await api.embed({"input": items})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
        assert answer.json()["error"]["code"] == "request_too_large"
    assert api.served.backend.batches == []


@pytest.mark.parametrize("dimensions", [1, 3, 8, 4.0, None])
async def test_dimensions(api: Api, dimensions: float | None) -> None:
    """A vector is the prefix of the full one, scaled to unit length; null is the native size."""
    (vector,) = vectors(await api.embed({"input": "alpha", "dimensions": dimensions}))
    prefix = np.asarray(unit_vector(api, "alpha"))[: int(dimensions or 8)]
    np.testing.assert_allclose(vector, prefix / np.linalg.norm(prefix), atol=1e-6)


@pytest.mark.parametrize("dimensions", [0, -1, 9, 10**30, 2.5, "8", True, [8]], ids=repr)
async def test_wrong_dimensions(api: Api, dimensions: Any) -> None:
    """Wrong dimensions are 400, and the error names the field."""
    answer = await api.embed({"input": "alpha", "dimensions": dimensions})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "dimensions")


async def test_dimensions_out_of_range_name_the_range(api: Api) -> None:
    """The error tells the range of dimensions."""
    message = (await api.embed({"input": "a", "dimensions": 9})).json()["error"]["message"]
    assert "1 to 8" in message
    assert "less than or equal to 8" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoding_format", "hex"),
        ("encoding_format", 1),
        ("model", 3),
        ("normalize", "yes"),
        ("truncate", "middle"),
        ("truncate", 1),
        ("prompt", 1),
        ("prompt_name", "nope"),
        ("input_type", 5),
        ("output_dtype", "int4"),
        ("late_chunking", "yes"),
        ("layers", 2),
        ("map", "x"),
    ],
)
async def test_wrong_fields_are_named(api: Api, field: str, value: Any) -> None:
    """Fields of wrong types or values are refused by name, and so are those that this model cannot serve."""
    answer = await api.embed({"input": "alpha", field: value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


async def test_nulls_and_unknown_fields_are_ignored(api: Api) -> None:
    """Nulls count as absent and unknown fields are ignored, for real clients send both."""
    nulls = dict.fromkeys(
        ("model", "dimensions", "encoding_format", "user", "truncate", "prompt", "output_dtype")
    )
    assert len(vectors(await api.embed({"input": "a", **nulls, "future_field": {"x": 1}}))) == 1


async def test_unknown_fields_are_refused_where_the_operator_says_so(make_api: MakeApi) -> None:
    """With `reject_unknown_fields` an unknown field is refused by name."""
    api = make_api(reject_unknown_fields=True)
    answer = await api.embed({"input": "a", "modle": "x"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "modle")


async def test_too_long_inputs_get_the_message_that_clients_match(api: Api) -> None:
    """The error has the text and both numbers that litellm and others read."""
    answer = await api.embed({"input": ["ok", LONG]})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input[1]")
    assert error["message"] == (
        "This model's maximum context length is 16 tokens, however you requested 42 tokens (42 in your prompt; "
        "0 for the completion). Please reduce your prompt; or completion length."
    )


@pytest.mark.parametrize(
    ("word", "truncation"),
    [(True, "end"), ("end", "end"), ("END", "end"), ("start", "start")],
    ids=repr,
)
async def test_truncation_on_request_is_reported(api: Api, word: Any, truncation: str) -> None:
    """A header counts the inputs that were cut, and `usage` counts tokens after truncation."""
    text = "one " * 20 + "two " * 20
    answer = await api.embed({"input": ["ok", text], "truncate": word})
    (encoded,) = api.served.tokenizer.encode_texts([text], TokenizeOptions(Truncation(truncation)))
    vector = fake_vector(encoded.ids)
    np.testing.assert_allclose(vectors(answer)[1], vector / np.linalg.norm(vector), atol=1e-6)
    assert answer.headers["x-embed-truncated"] == "1"
    assert answer.json()["usage"]["total_tokens"] == 4 + 16


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"input_type": "query"}, "query : alpha"),
        ({"input_type": "search_document"}, "passage : alpha"),
        ({"task": "retrieval.query"}, "query : alpha"),
        ({"input_type": "clustering"}, "alpha"),
        ({"prompt_name": "document"}, "passage : alpha"),
        ({"prompt": "red "}, "red alpha"),
        ({}, "alpha"),
    ],
    ids=repr,
)
async def test_prompts(api: Api, options: dict[str, Any], text: str) -> None:
    """Prompts are chosen by role, name or text, and a role without a prompt is no error."""
    (vector,) = vectors(await api.embed({"input": "alpha", **options}))
    np.testing.assert_allclose(vector, unit_vector(api, text), atol=1e-6)


async def test_raw_vectors_on_request(api: Api) -> None:
    """`normalize: false` gives the raw pooled vector."""
    (vector,) = vectors(await api.embed({"input": "alpha", "normalize": False}))
    assert np.linalg.norm(vector) == pytest.approx(np.linalg.norm(fake_vector([2, 5, 3])), rel=1e-5)


async def test_the_requested_name_is_echoed(api: Api) -> None:
    """The answer has the model's name as requested, by which caches key; without one it has the served name."""
    for name in ("text-embedding-3-small", "fake-model"):
        assert (await api.embed({"input": "a", "model": name})).json()["model"] == name
    assert (await api.embed({"input": "a"})).json()["model"] == SPEC.name


async def test_an_unknown_model_is_404_before_the_input_is_looked_at(api: Api) -> None:
    """An unknown model is 404 with OpenAI's code, before the input is looked at."""
    answer = await api.embed({"input": [], "model": "nope"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert "`nope` does not exist" in error["message"]


async def test_models_are_listed_and_described(api: Api) -> None:
    """A listed model has OpenAI's four keys, its dimensions and its space."""
    listing = (await api.client.get("/v1/models")).json()
    assert listing["object"] == "list"
    model, alias = listing["data"]
    assert (alias["id"], alias["root"]) == ("text-embedding-3-small", SPEC.name)
    assert (model["id"], model["object"], model["created"], model["owned_by"]) == (
        *(SPEC.name, "model", SPEC.created_s),
        "nestvec",
    )
    assert model["dimensions"] == {"native": 8, "range": [1, 8], "trained": [8, 4]}
    assert model["space"] == SPEC.space
    assert (await api.client.get("/models")).json() == listing


@pytest.mark.parametrize(
    "name",
    [
        "org/fake-model",
        "org%2Ffake-model",
        "fake-model",
        "text-embedding-3-small",
        "ORG%2FFAKE-MODEL",
    ],
)
async def test_a_model_is_described_by_any_of_its_names(api: Api, name: str) -> None:
    """A model is described by any of its names, with slashes raw or percent-encoded, as clients differ."""
    answer = await api.client.get(f"/v1/models/{name}")
    assert answer.status_code == 200
    assert answer.json()["root"] == SPEC.name
    assert answer.json()["id"] == name.replace("%2F", "/")


async def test_an_unknown_model_is_not_described(api: Api) -> None:
    """An unknown model is 404, and the error names the parameter."""
    answer = await api.client.get("/v1/models/nope")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "model")


async def test_large_answers_give_way_to_others(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large answer is encoded in slices, with the same result."""
    whole = vectors(await api.embed({"input": ["alpha", "beta", "gamma"]}))
    monkeypatch.setattr("nestvec.api.requests.vector_json.VALUES_PER_SLICE", 8)
    assert vectors(await api.embed({"input": ["alpha", "beta", "gamma"]})) == whole
