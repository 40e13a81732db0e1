"""Similarity of pairs and matrices, explained by tokens, and rescoring for the second stage of a search."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from tests.api.applications import Api, MakeApi
from tests.api.scoring.test_outputs import DTYPES
from tests.engine.front.test_vector_plan import random_map
from tests.support.served import ServedOptions

TEXTS = ["alpha", "beta gamma", "one two three red"]


async def vectors(api: Api, texts: list[str], **body: Any) -> np.ndarray[Any, Any]:
    """Return the vectors that /v1/embeddings gives, `[N, D]` float64."""
    answer = await api.embed({"input": texts, **body})
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]], np.float64)


def plain(stored: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Return stored values as vectors to compare; bits become signs."""
    if dtype in ("binary", "ubinary"):
        octets = (stored + (128 if dtype == "binary" else 0)).astype(np.uint8)
        return np.unpackbits(octets, axis=1).astype(np.float64) * 2 - 1
    return stored - (128 if dtype == "uint8" else 0)


def cosines(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the cosines of each row on the left with each on the right."""
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (left, right)]
    values: np.ndarray[Any, Any] = unit[0] @ unit[1].T
    return values


@pytest.mark.parametrize("dtype", DTYPES)
async def test_matrices_are_of_stored_vectors(api: Api, dtype: str) -> None:
    """Matrices and pairs are of the vectors as stored in each dtype; the left alone is compared with itself."""
    stored = plain(await vectors(api, TEXTS, output_dtype=dtype), dtype)
    expected = cosines(stored, stored)
    answer = await api.client.post("/v1/similarity", json={"left": TEXTS, "output_dtype": dtype})
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(answer.json()["similarities"], expected, atol=1e-6)
    body = {"left": TEXTS[:1], "right": TEXTS[1:], "output_dtype": dtype}
    part = (await api.client.post("/v1/similarity", json=body)).json()
    np.testing.assert_allclose(part["similarities"], expected[:1, 1:], atol=1e-6)
    assert part["usage"]["prompt_tokens"] == 3 + 4 + 6
    pairs = {"pairs": [[TEXTS[0], TEXTS[1]], [TEXTS[2], TEXTS[2]]], "output_dtype": dtype}
    two = (await api.client.post("/v1/similarity", json=pairs)).json()
    np.testing.assert_allclose(two["similarities"], [expected[0, 1], expected[2, 2]], atol=1e-6)


async def test_at_other_dimensions_and_through_maps(make_api: MakeApi) -> None:
    """Dimensions and maps change similarities as they change the vectors."""
    api = make_api(ServedOptions(maps=(random_map("short", width=4),)))
    for options in ({"dimensions": 3}, {"map": "short"}):
        expected = cosines(*[await vectors(api, TEXTS, **options)] * 2)
        answer = await api.client.post("/v1/similarity", json={"left": TEXTS, **options})
        np.testing.assert_allclose(answer.json()["similarities"], expected, atol=1e-6)


async def test_explanations_sum_to_the_cosine(api: Api) -> None:
    """The contributions of tokens sum to the cosine, and tokens tell their spans in the texts."""
    pairs = [["alpha beta", "beta gamma one"], ["red", "red"]]
    body = {"pairs": pairs, "explain": True, "dimensions": 5}
    answer = (await api.client.post("/v1/similarity", json=body)).json()
    for pair, value, explanation in zip(
        pairs, answer["similarities"], answer["explanations"], strict=True
    ):
        shares = np.array(explanation["contributions"])
        assert shares.sum() == pytest.approx(value, abs=1e-6)
        assert explanation["similarity"] == pytest.approx(value, abs=1e-6)
        assert shares.shape == (len(explanation["left_tokens"]), len(explanation["right_tokens"]))
        for text, side in zip(pair, ("left_tokens", "right_tokens"), strict=True):
            tokens = [t for t in explanation[side] if not t["special"]]
            assert [text[t["start"] : t["stop"]] for t in tokens] == text.split()
            assert [t["special"] for t in explanation[side]] == [True, *[False] * len(tokens), True]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "left"),
        ({"left": []}, "left"),
        ({"left": [1]}, "left[0]"),
        ({"left": ["a"], "right": ["b", 2]}, "right[1]"),
        ({"pairs": []}, "pairs"),
        ({"pairs": [["a", "b"], ["a"]]}, "pairs[1]"),
        ({"pairs": [["a", "b"]], "left": ["a"]}, "pairs"),
        ({"left": ["a"] * 600, "right": ["b"] * 600}, "left"),
        ({"left": ["a"], "explain": True}, "explain"),
        ({"pairs": [["a", "b"]] * 17, "explain": True}, "explain"),
        ({"pairs": [["a", "b"]], "explain": True, "output_dtype": "int8"}, "explain"),
        ({"pairs": [["a", "b"]], "explain": "yes"}, "explain"),
        ({"left": ["a"], "output_dtype": "bits"}, "output_dtype"),
        ({"left": ["a"], "dimensions": 9}, "dimensions"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_wrong_bodies_name_their_field(api: Api, body: dict[str, Any], param: str) -> None:
    """A wrong body is refused by the name of its field."""
    answer = await api.client.post("/v1/similarity", json=body)
    assert answer.status_code in (400, 413), answer.text
    assert answer.json()["error"]["param"] == param


async def test_too_long_texts_name_their_pair(api: Api) -> None:
    """A text that is too long is refused by its field and index."""
    body = {"pairs": [["a", "b"], ["a", "beta " * 40]]}
    answer = await api.client.post("/v1/similarity", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "pairs[1]"


@pytest.mark.parametrize("dtype", DTYPES)
async def test_candidates_are_ordered_by_better_vectors(api: Api, dtype: str) -> None:
    """Texts, stored lists and stored base64 of the same documents are ordered alike against a float query."""
    query = await vectors(api, ["beta"], input_type="query")
    documents = {"output_dtype": dtype, "input_type": "document"}
    stored = await vectors(api, TEXTS, **documents)
    expected = cosines(query, plain(stored, dtype))[0]
    packed = await api.embed({"input": TEXTS, **documents, "encoding_format": "base64"})
    forms = [
        {"documents": TEXTS},
        {"vectors": stored.tolist()},
        {"vectors": [row["embedding"] for row in packed.json()["data"]]},
    ]
    for form in forms:
        body = {"query": "beta", "output_dtype": dtype, **form}
        answer = await api.client.post("/v1/rescore", json=body)
        assert answer.status_code == 200, answer.text
        scores = {row["index"]: row["score"] for row in answer.json()["results"]}
        assert list(scores) == np.argsort(-expected, kind="stable").tolist()
        np.testing.assert_allclose([scores[n] for n in range(3)], expected, atol=1e-5)
    body = {"query": "beta", "documents": TEXTS, "top_n": 1, "return_documents": True}
    (top,) = (await api.client.post("/v1/rescore", json=body)).json()["results"]
    assert top["document"] == TEXTS[top["index"]]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": ["a"]}, "query"),
        ({"query": "a"}, "documents"),
        ({"query": "a", "documents": ["b"], "vectors": [[1.0] * 8]}, "documents"),
        ({"query": "a", "documents": []}, "documents"),
        ({"query": "a", "documents": ["b"], "top_n": 0}, "top_n"),
        ({"query": "a", "vectors": []}, "vectors"),
        ({"query": "a", "vectors": [[1.0] * 8, [1.0] * 7]}, "vectors[1]"),
        ({"query": "a", "vectors": [["x"] * 8]}, "vectors[0]"),
        ({"query": "a", "vectors": ["%%%"]}, "vectors[0]"),
        ({"query": "a", "vectors": [base64.b64encode(b"1234567").decode()]}, "vectors[0]"),
        ({"query": "a", "vectors": [[1e400] * 8]}, None),  # no JSON: RFC 8259 has no infinity
        ({"query": "a", "vectors": [[None] * 8]}, "vectors[0]"),
        ({"query": "a", "vectors": [[300] * 8], "output_dtype": "int8"}, "vectors[0]"),
        ({"query": "a", "vectors": [[1.5] * 8], "output_dtype": "int8"}, "vectors[0]"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_wrong_candidates_name_their_index(
    api: Api, body: dict[str, Any], param: str | None
) -> None:
    """A wrong candidate is refused by the index of its vector, or by its field."""
    content = json.dumps(body).replace("Infinity", "1e400")
    answer = await api.client.post("/v1/rescore", content=content)
    assert answer.status_code in (400, 413), answer.text
    assert answer.json()["error"]["param"] == param, answer.text


async def test_too_long_candidates_name_their_index(api: Api) -> None:
    """A document that is too long is refused by its index, before the query is run."""
    body = {"query": "a", "documents": ["a", "beta " * 40]}
    answer = await api.client.post("/v1/rescore", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "documents[1]")
    assert api.served.backend.batches == []
