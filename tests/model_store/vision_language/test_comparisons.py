"""Texts and pictures in one input on the routes that compare, in recipes, and in the library."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.assembly.library.embedder import Embedder
from nestvec.engine.types import Float64Array
from nestvec.errors import InputError
from PIL import Image
from starlette.testclient import TestClient

from tests.engine.pictures.forms import FORMS
from tests.model_store.vision_language.inputs import expected, parts_of, url_of
from tests.model_store.vision_language.models import INPUTS

TOLERANCE = 1e-5
TEXT = "a red apple"
# The same as "before" is: a picture, and a text behind it.
BOTH = {"text": TEXT, "image": url_of("png")}
PARTS = {"content": parts_of("behind")}
VL = {"model": "vl"}


def cosines(left: list[str], right: list[str]) -> Float64Array:
    """Return the cosines of inputs by their names."""
    rows, columns = (np.stack([expected(name) for name in names]) for names in (left, right))
    return np.asarray(rows.astype(np.float64) @ columns.T)


def post(server: TestClient, path: str, body: dict[str, Any]) -> Any:
    """POST a body, and return the answer's."""
    answer = server.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_similarity_rescoring_and_scores(server: TestClient) -> None:
    """Objects of a text and a picture, and contents of parts, are one input on either side."""
    wanted = cosines(["before", "wide"], ["behind", "text"])
    sides = [BOTH, {"image": url_of("wide")}], [PARTS, TEXT]
    answer = post(server, "/v1/similarity", {"left": sides[0], "right": sides[1], **VL})
    np.testing.assert_allclose(answer["similarities"], wanted, atol=TOLERANCE)
    answer = post(server, "/v1/similarity", {"pairs": [[BOTH, PARTS]], **VL})
    np.testing.assert_allclose(answer["similarities"], wanted[:1, 0], atol=TOLERANCE)
    body = {"query": BOTH, "documents": sides[1], "return_documents": True, **VL}
    rows = post(server, "/v1/rescore", body)["results"]
    scores = {row["index"]: (row["score"], row["document"]) for row in rows}
    np.testing.assert_allclose([scores[n][0] for n in (0, 1)], wanted[0], atol=TOLERANCE)
    assert [scores[n][1] for n in (0, 1)] == [None, TEXT]
    rows = post(server, "/score", {"queries": BOTH, "documents": sides[1], **VL})["data"]
    np.testing.assert_allclose([row["score"] for row in rows], wanted[0], atol=TOLERANCE)
    refused = server.post("/v1/similarity", json={"pairs": [[BOTH, TEXT]], "explain": True, **VL})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "explain")


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_reranking(server: TestClient, path: str) -> None:
    """A document of a text and a picture is one input of both; what of it is read is said by `rank_fields`."""
    wanted = cosines(["behind"], ["before", "text", "wide"])[0]
    documents = [BOTH, {"text": TEXT, "url": "https://nowhere"}, {"image": url_of("wide")}]
    body = {"query": PARTS, "documents": documents, "return_documents": False, **VL}
    for fields in ({}, {"rank_fields": ["text"]}):
        rows = post(server, path, {**body, **fields})["results"]
        scores = {row["index"]: row["relevance_score"] for row in rows}
        np.testing.assert_allclose([scores[n] for n in range(3)], wanted, atol=TOLERANCE)
    titled = [{"title": TEXT, "text": "not read", "image": url_of("png")}]
    (row,) = post(server, path, {**body, "documents": titled, "rank_fields": ["title"]})["results"]
    assert abs(row["relevance_score"] - wanted[0]) < TOLERANCE


def test_labels(server: TestClient) -> None:
    """An input of both has a probability of each label, by the softmax of cosines of models without a scale."""
    body = {"input": [BOTH, TEXT], "labels": [TEXT, "a green pear"], **VL}
    labelled = post(server, "/v1/classify", body)
    labels = {"input": body["labels"], **VL}
    answer = post(server, "/v1/embeddings", labels)
    anchors = np.array([row["embedding"] for row in answer["data"]])
    inputs = np.stack([expected("before"), expected("text")]).astype(np.float64)
    odds = np.exp(20 * inputs @ anchors.T)
    given = [[each["score"] for each in row["predictions"]] for row in labelled["data"]]
    np.testing.assert_allclose(given, odds / odds.sum(1, keepdims=True), atol=1e-4)
    assert not labelled["calibrated"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/embeddings", {"input": [TEXT, BOTH]}, "input[1]"),
        ("/v1/classify", {"input": [BOTH], "labels": ["a", "b"]}, "input[0]"),
        ("/v1/similarity", {"left": [TEXT], "right": [TEXT, PARTS]}, "right[1]"),
        ("/v1/rescore", {"query": BOTH, "documents": [TEXT]}, "query"),
        ("/v1/rerank", {"query": TEXT, "documents": [TEXT, BOTH]}, "documents[1]"),
        ("/score", {"queries": BOTH, "documents": [TEXT]}, "queries"),
    ],
)
def test_models_of_two_towers_refuse_both_at_once(
    server: TestClient, path: str, body: dict[str, Any], param: str
) -> None:
    """Each route names the input at fault, and the way out."""
    refused = server.post(path, json={**body, "model": "clip"})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"], error["code"]) == (400, param, "unsupported")
    assert "inputs of their own" in error["message"]


def test_recipes(server: TestClient) -> None:
    """A recipe takes both at once where all of its parts do, and names the part that does not."""
    body = {"input": [BOTH, TEXT]}
    rows = post(server, "/v1/embeddings", {**body, "model": "twice"})["data"]
    for row, name in zip(rows, ("before", "text"), strict=True):
        wanted = np.hstack([expected(name) * np.sqrt(0.25), expected(name) * np.sqrt(0.75)])
        np.testing.assert_allclose(row["embedding"], wanted, atol=TOLERANCE)
    apart = {"input": [{"image": url_of("png")}, TEXT], "model": "joined"}
    assert len(post(server, "/v1/embeddings", apart)["data"]) == len(apart["input"])
    refused = server.post("/v1/embeddings", json={**body, "model": "joined"})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"], error["code"]) == (400, "input[0]", "unsupported")
    assert "part 'clip' takes either in an input of its own" in error["message"]


def test_other_numbers_of_patches_are_refused(server: TestClient) -> None:
    """They are an option of NaFlex: here a picture has as many as the folder's bounds on pixels give it."""
    body = {"input": [BOTH], "mm_processor_kwargs": {"max_num_patches": 64}, **VL}
    refused = server.post("/v1/embeddings", json=body)
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "mm_processor_kwargs")


def test_a_list_of_the_library_is_one_input(embedder: Embedder, tmp_path: Path) -> None:
    """Texts and pictures of any form, in their order; also as a query and as documents."""
    path = tmp_path / "apple"
    path.write_bytes(FORMS["png"]())
    forms: list[Any] = [path, FORMS["png"](), Image.open(io.BytesIO(FORMS["png"]()))]
    vectors = embedder.embed([*((form, TEXT) for form in forms), TEXT, [TEXT]])
    wanted = [expected(name) for name in ("before", "before", "before", "text", "text")]
    np.testing.assert_allclose(vectors, wanted, atol=TOLERANCE)
    instruction, parts = INPUTS["two"]
    two: list[Any] = [FORMS[part[1:]]() if part[0] == "@" else part for part in parts]
    (vector,) = embedder.embed([two], instruction=instruction)
    np.testing.assert_allclose(vector, expected("two"), atol=TOLERANCE)
    ranked = embedder.rerank((path, TEXT), [TEXT, [FORMS["png"](), TEXT]])
    wanted_scores = cosines(["before"], ["text", "before"])[0]
    np.testing.assert_allclose(
        [each.score for each in sorted(ranked, key=lambda each: each.index)],
        wanted_scores,
        atol=TOLERANCE,
    )
    for wrong in ([], [TEXT, 7], [TEXT, None]):
        with pytest.raises(InputError, match=r"texts\[1\] must be a text") as caught:
            embedder.embed([TEXT, wrong])  # type: ignore[list-item]  # what is refused
        assert caught.value.input_index == 1
