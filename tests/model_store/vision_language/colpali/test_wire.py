"""ColPali over HTTP: pages given out by their patches, compared with queries, and ranked by them."""

from typing import Any

import numpy as np
from starlette.testclient import TestClient

from tests.model_store.vision_language.colpali.inputs import IDS, MADE, VECTORS, item_of
from tests.model_store.vision_language.colpali.models import (
    DIMENSIONS,
    DOCUMENT,
    INPUTS,
    QUERIES,
)
from tests.model_store.vision_language.inputs import url_of

TOLERANCE = 1e-5
QUERY = "a red apple"
PAGES = tuple(name for name in INPUTS if name.startswith("@"))
SCORES = np.array(MADE["scores"])


def post(client: TestClient, path: str, body: dict[str, Any]) -> Any:
    """POST a body, and return the answer's."""
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_vectors_of_queries_pages_and_documents(library: TestClient) -> None:
    """In Jina's words and OpenAI's, with the tokens that each runs as."""
    names = (QUERY, "@wide", "@exif-6")
    body = {"input": [item_of(name) for name in names], "return_multivector": True}
    answer = post(library, "/v1/embeddings", body)
    for row, name in zip(answer["data"], names, strict=True):
        assert np.abs(np.array(row["embeddings"]) - VECTORS[name]).max() < TOLERANCE, name
    assert answer["usage"]["total_tokens"] == sum(len(IDS[name]) for name in names)
    page = {"type": "image_url", "image_url": {"url": url_of("wide")}}
    body = {"input": [page, DOCUMENT], "output_types": ["tokens"], "input_type": "document"}
    rows = post(library, "/v1/embeddings", body)["data"]
    for row, name in zip(rows, ("@wide", f"#{DOCUMENT}"), strict=True):
        assert np.abs(np.array(row["embeddings"]) - VECTORS[name]).max() < TOLERANCE, name


def test_scores_are_the_processors(library: TestClient) -> None:
    """Queries against pages: `score_retrieval` of transformers, as a matrix and in the order of a ranking."""
    pages = [item_of(name) for name in PAGES]
    body = {"left": list(QUERIES), "right": pages, "metric": "maxsim"}
    scores = post(library, "/v1/similarity", body)["similarities"]
    np.testing.assert_allclose(scores, SCORES, rtol=TOLERANCE)
    wanted = SCORES[QUERIES.index(QUERY)]
    answer = post(library, "/rerank", {"query": QUERY, "documents": pages, "top_n": 4})
    assert [row["index"] for row in answer["results"]] == np.argsort(-wanted)[:4].tolist()
    given = [row["relevance_score"] for row in answer["results"]]
    np.testing.assert_allclose(given, np.sort(wanted)[::-1][:4], rtol=TOLERANCE)


def test_what_is_refused(library: TestClient) -> None:
    """A page with a text, one vector of anything, and pages beyond a limit on tokens, each with its place."""
    page, part = {"image": url_of("wide")}, {"type": "input_image", "image_url": url_of("wide")}
    for inputs, more, named in (
        ([QUERY, {**page, "text": QUERY}], {"return_multivector": True}, "input[1]"),
        ([page], {}, "late-interaction model"),
        ([part], {"output_types": ["tokens"], "truncate_prompt_tokens": 30}, "36"),
    ):
        answer = library.post("/v1/embeddings", json={"input": inputs, **more})
        assert (answer.status_code, named in answer.text) == (400, True), answer.text
    row = library.get("/v1/models/pages").json()
    assert (row["outputs"], row["input_modalities"]) == (["tokens"], ["text", "image"])
    assert row["dimensions"]["native"] == DIMENSIONS
