"""Token vectors of pictures over HTTP: in each dialect that gives some, compared, ranked; and over a socket."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import FloatArray
from starlette.testclient import TestClient

from tests.model_store.vision_language.colqwen2.inputs import (
    MADE,
    TOKENS,
    VECTORS,
    item_of,
    part_of,
)
from tests.model_store.vision_language.colqwen2.models import DIMENSIONS, INPUTS, QUERIES
from tests.model_store.vision_language.inputs import url_of
from tests.model_store.vision_language.models import write_model as write_chat_model
from tests.support.server import running_server

TOLERANCE = 1e-5
QUERY = "a red apple"
PAGES = tuple(name for name in INPUTS if name.startswith("@"))
SOME = (QUERY, "@wide", "x", "@exif-6")
SCORES = np.array(MADE["scores"])
TOKEN_VECTORS = {"output_types": ["tokens"]}


def post(client: TestClient, path: str, body: dict[str, Any]) -> Any:
    """POST a body, and return the answer's."""
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(client: TestClient, path: str, body: dict[str, Any]) -> tuple[str, str]:
    """POST a body that is refused, and return the field and the message."""
    answer = client.post(path, json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json().get("error") or answer.json()
    return str(error.get("param")), str(error.get("message"))


def check(rows: Sequence[Any], *names: str) -> None:
    """Check the token vectors of inputs by their names."""
    for row, name in zip(rows, names, strict=True):
        assert np.abs(np.asarray(row, np.float32) - VECTORS[name]).max() < TOLERANCE, name


def items(*names: str) -> list[Any]:
    """Return inputs as Jina's bodies hold them, and those of routes that compare."""
    return [item_of(name) for name in names]


def parts(*names: str) -> list[Any]:
    """Return inputs as OpenAI's bodies hold them."""
    return [part_of(name) for name in names]


def test_jinas_multivectors(pages: TestClient) -> None:
    """`return_multivector` gives a vector for each token of a query, and for each patch of a page."""
    body = {"input": items(*SOME), "return_multivector": True, "task": "retrieval.query"}
    answer = post(pages, "/v1/embeddings", body)
    check([row["embeddings"] for row in answer["data"]], *SOME)
    assert answer["usage"]["total_tokens"] == sum(TOKENS[name] for name in SOME)
    packed = post(pages, "/v1/embeddings", {**body, "embedding_type": "ubinary"})
    for row, name in zip(packed["data"], SOME, strict=True):
        bits = np.unpackbits(np.array(row["embeddings"], np.uint8), axis=1)
        wrong = (bits > 0) != (VECTORS[name] > 0)
        assert not (wrong & (np.abs(VECTORS[name]) > TOLERANCE)).any()


def test_vectors_of_tokens_in_openais_words(pages: TestClient) -> None:
    """`output_types` asks for them; in base64, cut to fewer dimensions, and merged they are what a text's are."""
    body = {**TOKEN_VECTORS, "input": parts(*SOME), "encoding_format": "base64"}
    answer = post(pages, "/v1/embeddings", body)
    decoded: list[FloatArray] = [
        np.frombuffer(base64.b64decode(row["embeddings"]), np.float32).reshape(-1, DIMENSIONS)
        for row in answer["data"]
    ]
    check(decoded, *SOME)
    cut = post(pages, "/v1/embeddings", {**body, "dimensions": 4, "encoding_format": "float"})
    short = VECTORS["@wide"][:, :4]
    short = short / np.linalg.norm(short, axis=1, keepdims=True)
    assert np.abs(np.array(cut["data"][1]["embeddings"]) - short).max() < TOLERANCE
    param, message = refusal(pages, "/v1/embeddings", {**body, "return_offsets": True})
    assert (param, "pictures" in message) == ("return_offsets", True)


def test_vllms_pooling(pages: TestClient) -> None:
    """The task is that of the model; a message with a page is one input, and like patches are merged on request."""
    answer = post(pages, "/pooling", {"input": items(*SOME)})
    check([row["data"] for row in answer["data"]], *SOME)
    content = [{"type": "image_url", "image_url": {"url": url_of("wide")}}]
    messages = {"messages": [{"role": "user", "content": content}], "task": "token_embed"}
    check([post(pages, "/pooling", messages)["data"][0]["data"]], "@wide")
    merged = post(pages, "/pooling", {**messages, "pool_factor": 4})["data"][0]["data"]
    assert len(merged) == 1 + (TOKENS["@wide"] - 1) // 4
    content.append({"type": "text", "text": "and a text"})
    _, message = refusal(pages, "/pooling", messages)
    assert "none of both together" in message


def test_max_sim_is_the_processors_score(pages: TestClient) -> None:
    """Queries against pages, as a matrix and pair by pair: `score_retrieval` of transformers' processor."""
    body = {"left": list(QUERIES), "right": items(*PAGES), "metric": "maxsim"}
    answer = post(pages, "/v1/similarity", body)
    np.testing.assert_allclose(answer["similarities"], SCORES, rtol=TOLERANCE)
    pairs = [[QUERIES[n], item_of(PAGES[n])] for n in range(len(QUERIES))]
    answer = post(pages, "/v1/similarity", {"pairs": pairs, "metric": "maxsim"})
    wanted = [SCORES[n, n] for n in range(len(QUERIES))]
    np.testing.assert_allclose(answer["similarities"], wanted, rtol=TOLERANCE)
    for field, value in (("metric", "bertscore"), ("explain", True)):
        param, _ = refusal(pages, "/v1/similarity", {"pairs": pairs, field: value})
        assert param == field


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_pages_are_ranked_by_a_query(pages: TestClient, path: str) -> None:
    """Documents are pages, the query a text: the best first, by the processor's score."""
    wanted = SCORES[QUERIES.index(QUERY)]
    body = {"query": QUERY, "documents": items(*PAGES), "top_n": 5, "return_documents": False}
    answer = pages.post(path, json=body)
    rows = answer.json()["results"]
    assert answer.headers["x-embed-score"] == "max-sim"
    assert [row["index"] for row in rows] == np.argsort(-wanted)[:5].tolist()
    scores = [row["relevance_score"] for row in rows]
    np.testing.assert_allclose(scores, np.sort(wanted)[::-1][:5], rtol=TOLERANCE)
    tokens = TOKENS[QUERY] + sum(TOKENS[name] for name in PAGES)
    assert answer.json()["usage"]["total_tokens"] == tokens


def test_pages_are_scored(pages: TestClient) -> None:
    """VLLM's scores, one against many; a document of text has neither the query's words nor its suffix."""
    body = {"queries": QUERY, "documents": [*items(*PAGES[:3]), QUERY]}
    rows = post(pages, "/score", body)["data"]
    wanted = SCORES[QUERIES.index(QUERY), :3]
    np.testing.assert_allclose([row["score"] for row in rows[:3]], wanted, rtol=TOLERANCE)
    asked = {**TOKEN_VECTORS, "input": [QUERY], "input_type": "document"}
    plain = np.array(post(pages, "/v1/embeddings", asked)["data"][0]["embeddings"])
    assert len(plain) == len(QUERY)
    near = (VECTORS[QUERY] @ plain.T).max(axis=1).sum()
    np.testing.assert_allclose(rows[3]["score"], near, rtol=TOLERANCE)
    (row,) = post(pages, "/score", {"text_1": QUERY, "text_2": QUERY})["data"]
    np.testing.assert_allclose(row["score"], near, rtol=TOLERANCE)


def test_what_the_model_is(pages: TestClient) -> None:
    """It takes texts and pictures and gives vectors of tokens; whoever asks for one vector is told so."""
    row = pages.get("/v1/models/pages").json()
    assert (row["outputs"], row["input_modalities"]) == (["tokens"], ["text", "image"])
    assert (row["dimensions"]["native"], row["prompts"]) == (DIMENSIONS, ["document", "query"])
    for inputs in ([QUERY], items("@wide")):
        _, message = refusal(pages, "/v1/embeddings", {"input": inputs})
        assert "late-interaction model" in message


def test_a_requests_bounds_hold(pages: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of pages count as those of texts do, before anything is decoded."""
    service: EmbeddingService = pages.app.state.service  # type: ignore[attr-defined]  # of Starlette's
    most = TOKENS["@wide"] + 10
    monkeypatch.setattr(service, "limits", replace(service.limits, max_token_vectors=most))
    body: dict[str, Any] = {**TOKEN_VECTORS, "input": parts("@wide")}
    post(pages, "/v1/embeddings", body)
    for more in (part_of("@wide"), "x" * 20):
        answer = pages.post("/v1/embeddings", json={**body, "input": [*body["input"], more]})
        assert (answer.status_code, str(most) in answer.text) == (400, True)
    answer = pages.post("/rerank", json={"query": QUERY, "documents": items("@wide", "@png")})
    assert (answer.status_code, str(most) in answer.text) == (400, True)


@pytest.mark.process
@pytest.mark.load
def test_an_engine_process_behind_its_socket(colqwen2_folder: Path, tmp_path: Path) -> None:
    """Token vectors of pages and queries cross the socket as they are, with a model of one vector beside it."""
    (tmp_path / "vl").mkdir()
    with running_server(
        tmp_path,
        model=colqwen2_folder / "model",
        served_model_name="pages",
        models=f'{{"vl": {{"model": "{write_chat_model(tmp_path / "vl")}"}}}}',
        cache_dir=colqwen2_folder / "cache",
        http_processes=2,
    ) as running:
        body: dict[str, Any] = {**TOKEN_VECTORS, "input": parts(*INPUTS)}
        for _ in range(3):
            answer = httpx.post(f"{running.url}/v1/embeddings", json=body, timeout=60).json()
            check([row["embeddings"] for row in answer["data"]], *INPUTS)
        asked = {"query": QUERY, "documents": items(*PAGES)}
        rows = httpx.post(f"{running.url}/rerank", json=asked, timeout=60).json()["results"]
        wanted = SCORES[QUERIES.index(QUERY)]
        assert [row["index"] for row in rows] == np.argsort(-wanted).tolist()
