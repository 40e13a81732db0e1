"""ColModernVBERT over HTTP: pages ranked by a text, vectors of tokens, and what is counted and refused."""

import base64
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.engine.pictures.forms import colours, encoded
from tests.model_store.vision_language.colmodernvbert.inputs import EXPECTED, IDS, MADE, SCORES
from tests.model_store.vision_language.colmodernvbert.models import DOCUMENTS, QUERIES
from tests.model_store.vision_language.inputs import url_of

TOLERANCE = 1e-5
TILES = {"model": "tiles"}
PART = {"type": "image_url", "image_url": {"url": url_of("png")}}
PAGES = [{"image": url_of(name)} for name in DOCUMENTS]


def post(server: TestClient, path: str, body: dict[str, Any]) -> Any:
    """POST a body, and return the answer's."""
    answer = server.post(path, json={**TILES, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_pages_are_ranked_by_a_text(tiled_pages: TestClient, path: str) -> None:
    """Scores are those of the processor's own `score_retrieval`, in falling order."""
    for query, wanted in zip(QUERIES[:2], SCORES, strict=False):
        rows = post(tiled_pages, path, {"query": query, "documents": PAGES})["results"]
        scores = [row["relevance_score"] for row in rows]
        assert scores == sorted(scores, reverse=True)
        by_index = {row["index"]: row["relevance_score"] for row in rows}
        np.testing.assert_allclose([by_index[n] for n in range(len(PAGES))], wanted, atol=TOLERANCE)


def test_token_vectors_of_pages(tiled_pages: TestClient) -> None:
    """A row for each token of a page, the prompt's too; tokens are counted as they run."""
    answer = post(tiled_pages, "/pooling", {"input": [PAGES[0], QUERIES[0]], "task": "token_embed"})
    for row, name in zip(answer["data"], (DOCUMENTS[0], QUERIES[0]), strict=True):
        assert np.abs(np.array(row["data"]) - EXPECTED[name]).max() < TOLERANCE
    tokens = len(IDS[DOCUMENTS[0]]) + len(MADE["query_ids"][0])
    assert answer["usage"]["total_tokens"] == tokens


def test_what_is_refused(tiled_pages: TestClient) -> None:
    """An input of several parts, vectors that a model of tokens has not, and damaged files get 400 with the reason."""
    line = {"image": base64.b64encode(encoded(colours(201, 1), "PNG")).decode()}
    for body, word in (
        ({"input": [{**PAGES[0], "text": "and a text"}]}, "one picture"),
        ({"input": [{"content": [PART, PART]}]}, "one picture"),
        ({"input": [QUERIES[0], line]}, "longer side"),
    ):
        answer = tiled_pages.post("/pooling", json={**TILES, "task": "token_embed", **body})
        assert answer.status_code == 400, answer.text
        assert word in answer.text
    answer = tiled_pages.post("/v1/embeddings", json={**TILES, "input": PAGES[:1]})
    assert answer.status_code == 400, answer.text
