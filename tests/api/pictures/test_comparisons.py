"""Pictures on either side of a comparison: `/v1/similarity`, `/v1/rescore`, rerank in each dialect, and `/score`."""

import base64
from typing import Any

import numpy as np
import pytest
from nestvec.engine.pictures.decoding import PictureBounds
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.types import OutputKind

from tests.api.applications import Api, unit_vector
from tests.api.pictures.conftest import PICTURE_TOKENS, STAND_IN, MakePictureApi, PictureApi
from tests.api.pictures.test_forms import BASE64, JPEG_URL, PIXELS, PNG, URL, chat_part, text_part

RERANKS = ("/rerank", "/v1/rerank", "/v2/rerank")
IMAGE = {"image": URL}
# Prompts go before texts only, and in these tests a text stands for a picture.
PROMPTLESS: dict[str, Any] = {"prompts": {}, "default_prompt": None}


def cosine(pictures: PictureApi, left: str, right: str) -> float:
    """Return the cosine of two texts."""
    first, second = (unit_vector(pictures.api, text) for text in (left, right))
    return float(np.dot(first, second))


async def test_a_matrix_of_texts_and_pictures(pictures: PictureApi) -> None:
    """Left and right may have both, a lone picture may come bare, and what is compared counts."""
    body = {"left": ["alpha", IMAGE, {"text": "one"}], "right": [chat_part(JPEG_URL), "beta"]}
    answer = await pictures.post("/v1/similarity", body)
    expected = [
        [cosine(pictures, a, b) for b in (STAND_IN, "beta")] for a in ("alpha", STAND_IN, "one")
    ]
    np.testing.assert_allclose(answer["similarities"], expected, atol=1e-5)
    assert answer["usage"]["total_tokens"] == 2 * PICTURE_TOKENS + 3 * 3
    lone = await pictures.post("/v1/similarity", {"left": IMAGE, "right": "beta"})
    np.testing.assert_allclose(lone["similarities"], [expected[1][1:]], atol=1e-5)
    pictures.calls.clear()
    itself = await pictures.post("/v1/similarity", {"left": [IMAGE, "alpha"]})
    assert len(pictures.calls) == 1
    np.testing.assert_allclose(np.diag(itself["similarities"]), 1, atol=1e-5)


async def test_pairs_of_texts_and_pictures(pictures: PictureApi) -> None:
    """Each place of a pair is a text or a picture."""
    pairs = [["alpha", IMAGE], [IMAGE, "alpha"], [IMAGE, {"image": JPEG_URL}], ["one", "beta"]]
    answer = await pictures.post("/v1/similarity", {"pairs": pairs, "output_dtype": "float"})
    once = cosine(pictures, "alpha", STAND_IN)
    expected = [once, once, 1.0, cosine(pictures, "one", "beta")]
    np.testing.assert_allclose(answer["similarities"], expected, atol=1e-5)


async def test_a_picture_has_no_tokens_to_compare(pictures: PictureApi) -> None:
    """What goes token by token is refused by its field, before anything runs."""
    for field, value in (("explain", True), ("metric", "bertscore"), ("metric", "maxsim")):
        body = {"pairs": [["alpha", IMAGE]], field: value}
        param, message = await pictures.refusal("/v1/similarity", body)
        assert (param, "no tokens" in message) == (field, True)
    assert not pictures.calls


async def test_rescoring_pictures(make_picture_api: MakePictureApi) -> None:
    """Query and candidates may be pictures; in the answer a picture is null, and known by its index."""
    pictures = make_picture_api(spec_fields=PROMPTLESS)
    documents = ["alpha", IMAGE, {"text": "red"}]
    body = {"query": IMAGE, "documents": documents, "return_documents": True}
    results = (await pictures.post("/v1/rescore", body))["results"]
    assert results[0]["index"] == 1
    assert {row["index"]: row["document"] for row in results} == {0: "alpha", 1: None, 2: "red"}
    for row in results:
        words = ("alpha", STAND_IN, "red")[row["index"]]
        assert row["score"] == pytest.approx(cosine(pictures, STAND_IN, words), abs=1e-5)
    stored = [np.asarray(unit_vector(pictures.api, "alpha")).tolist()]
    (only,) = (await pictures.post("/v1/rescore", {"query": IMAGE, "vectors": stored}))["results"]
    assert only["score"] == pytest.approx(cosine(pictures, STAND_IN, "alpha"), abs=1e-5)


# Jina's words, OpenAI's parts as vLLM takes them, and a document of parts.
QUERIES: list[Any] = [IMAGE, {"image": BASE64}, {"url": URL}, chat_part(URL)]
QUERIES += [{"content": [chat_part(URL)]}, {"type": "image_base64", "image_base64": URL}]


@pytest.mark.parametrize("path", RERANKS)
async def test_rerank_with_pictures(make_picture_api: MakePictureApi, path: str) -> None:
    """A query and documents of either kind are ranked by cosine, with their tokens counted."""
    pictures = make_picture_api(spec_fields=PROMPTLESS)
    documents = [
        "alpha",
        {"text": "red"},
        IMAGE,
        chat_part(JPEG_URL),
        {"content": [text_part("one")]},
    ]
    texts = ["alpha", "red", STAND_IN, STAND_IN, "one"]
    for query in ("blue", *QUERIES):
        body = {"query": query, "documents": documents, "return_documents": True}
        answer = await pictures.api.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-embed-score"] == "cosine"
        words = query if isinstance(query, str) else STAND_IN
        for row in answer.json()["results"]:
            expected = cosine(pictures, words, texts[row["index"]])
            assert row["relevance_score"] == pytest.approx(expected, abs=1e-5)
        returned = {row["index"]: row["document"]["text"] for row in answer.json()["results"]}
        assert returned == {0: "alpha", 1: "red", 2: None, 3: None, 4: "one"}
        of_query = 3 if isinstance(query, str) else PICTURE_TOKENS
        assert answer.json()["usage"]["total_tokens"] == of_query + 3 * 3 + 2 * PICTURE_TOKENS


async def test_documents_of_search_engines_stay_texts(pictures: PictureApi, api: Api) -> None:
    """An object with a text is that text: `url` says where it is from, and a model of texts reads no more."""
    documents = [{"text": "alpha", "url": "https://example.com"}, {"title": "red", "bytes": 12}]
    body = {"query": "a", "documents": documents, "rank_fields": ["title", "text"]}
    assert (await pictures.refusal("/v1/rerank", body))[0] == "documents[0]"
    body = {"query": "a", "documents": documents[:1]}
    assert (await pictures.post("/v1/rerank", body))["results"][0]["index"] == 0
    both = {"query": "a", "documents": [{"text": "alpha", "image": "https://example.com/a.png"}]}
    param, message = await pictures.refusal("/v1/rerank", both)
    assert (param, "inputs of their own" in message) == ("documents[0]", True)
    assert (await api.client.post("/v1/rerank", json=both)).status_code == 200


async def test_scores_of_pictures(make_picture_api: MakePictureApi) -> None:
    """Parts and contents of one part stand on either side of vLLM's `/score`, under each pair of names."""
    pictures = make_picture_api(spec_fields=PROMPTLESS)
    expected = [cosine(pictures, "alpha", STAND_IN), cosine(pictures, "alpha", "beta")]
    for first, second in (("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")):
        body = {first: "alpha", second: [chat_part(URL), "beta"]}
        rows = (await pictures.post("/score", body))["data"]
        np.testing.assert_allclose([row["score"] for row in rows], expected, atol=1e-5)
    lone: dict[str, Any] = {"queries": {"content": [chat_part(URL)]}, "documents": ["alpha"]}
    (row,) = (await pictures.post("/v1/score", lone))["data"]
    assert row["score"] == pytest.approx(expected[0], abs=1e-5)


# Path, body, and where the picture that is none stands.
BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/similarity", {"left": ["a", {"image": "AAAA"}]}, "left[1]"),
    ("/v1/similarity", {"left": ["a", "b"], "right": ["a", IMAGE, {"image": "AAAA"}]}, "right[2]"),
    ("/v1/similarity", {"left": {"image": "AAAA"}, "right": "a"}, "left"),
    ("/v1/similarity", {"pairs": [["a", "b"], ["a", {"image": "AAAA"}]]}, "pairs[1]"),
    ("/v1/similarity", {"pairs": [["a", "b"], ["a", 7]]}, "pairs[1]"),
    ("/v1/similarity", {"pairs": [["a", {"x": 1}]]}, "pairs[0]"),
    ("/v1/rescore", {"query": {"image": "AAAA"}, "documents": ["a"]}, "query"),
    ("/v1/rescore", {"query": "a", "documents": ["a", {"image": "AAAA"}]}, "documents[1]"),
    ("/v1/rescore", {"query": "a", "documents": IMAGE}, "documents"),
    ("/v1/rerank", {"query": {"image": "https://a/b.png"}, "documents": ["a"]}, "query"),
    ("/v1/rerank", {"query": "a", "documents": ["a", IMAGE, {"image": "AAAA"}]}, "documents[2]"),
    ("/v1/rerank", {"query": "a", "documents": {"content": [chat_part("AAAA")]}}, "documents"),
    (
        "/v1/rerank",
        {"query": "a", "documents": [{"content": [chat_part(URL)] * 2}]},
        "documents[0]",
    ),
    ("/v1/rerank", {"query": {"x": 1}, "documents": ["a"]}, "query"),
    ("/v1/rerank", {"query": 7, "documents": ["a"]}, "query"),
    ("/score", {"text_1": "a", "text_2": ["a", chat_part("AAAA")]}, "text_2[1]"),
]


async def test_the_place_is_named(pictures: PictureApi) -> None:
    """An error says in which field, and where in it, stands what is no picture; nothing runs."""
    for path, body, place in BROKEN:
        answer = await pictures.api.client.post(path, json=body)
        assert answer.status_code == 400, (body, answer.text)
        assert answer.json()["error"]["param"] == place, body
    assert not pictures.calls


async def test_bounds_are_on_both_sides_together(make_picture_api: MakePictureApi) -> None:
    """Numbers, pixels and memory of all fields are added up before anything runs."""
    api = make_picture_api(PictureBounds(max_pictures=3))
    few = make_picture_api(PictureBounds(max_call_pixels=3 * PIXELS))
    for path, body, place in (
        ("/v1/similarity", {"left": [IMAGE] * 2, "right": [IMAGE] * 2}, "right[1]"),
        ("/v1/similarity", {"pairs": [[IMAGE, IMAGE]] * 2}, "pairs[1]"),
        ("/v1/rerank", {"query": IMAGE, "documents": [IMAGE] * 3}, "documents[2]"),
        ("/v1/rescore", {"query": IMAGE, "documents": [IMAGE] * 3}, "documents[2]"),
        ("/score", {"queries": [IMAGE] * 2, "documents": [IMAGE] * 2}, "documents[1]"),
    ):
        _, message = await api.refusal(path, body)
        assert "at most 3 pictures" in message
        param, message = await few.refusal(path, body)
        assert (param, "pixels" in message) == (place, True)
    assert not api.calls
    small = make_picture_api(max_in_flight_bytes=200_000)
    padded = {"image": base64.b64encode(PNG + bytes(90_000)).decode()}
    refused = await small.api.client.post("/v1/rerank", json={"query": "a", "documents": [padded]})
    assert refused.status_code == 429
    assert small.api.app.state.body_memory.held_bytes == 0


async def test_a_model_of_texts_refuses_pictures(api: Api) -> None:
    """In each route's words, with the field."""
    for path, body, place in (
        ("/v1/similarity", {"left": ["a", IMAGE]}, "left[1]"),
        ("/v1/rescore", {"query": IMAGE, "documents": ["a"]}, "query"),
        ("/v1/rerank", {"query": "a", "documents": ["a", IMAGE]}, "documents[1]"),
        ("/v2/rerank", {"query": "a", "documents": ["a", IMAGE]}, None),
        ("/score", {"text_1": IMAGE, "text_2": "a"}, "text_1"),
    ):
        answer = await api.client.post(path, json=body)
        assert answer.status_code == 400
        if place is None:  # Cohere's errors have a message only
            assert "multimodal" in answer.json()["message"]
        else:
            error = answer.json()["error"]
            assert (error["param"], error["code"]) == (place, "unsupported")


async def test_a_re_ranker_reads_no_pictures(make_picture_api: MakePictureApi) -> None:
    """A cross-encoder that is asked by name says that it takes texts only."""
    kinds = {"kinds": (OutputKind.LABELS,), "labels": ("relevant",), "pictures": None}
    api = make_picture_api(spec_fields=kinds)
    param, message = await api.refusal("/v1/rerank", {"query": "a", "documents": ["a", IMAGE]})
    assert (param, "multimodal" in message) == ("documents[1]", True)


async def test_the_pictures_reach_the_engine(pictures: PictureApi) -> None:
    """As files, in their places."""
    await pictures.post("/v1/rerank", {"query": "a", "documents": ["b", IMAGE]})
    inputs = [value for call in pictures.calls for value in call.inputs]
    assert inputs.count(Picture(PNG)) == 1
