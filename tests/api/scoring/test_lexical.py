"""Weights of terms by counts of a corpus, over HTTP, and rerank's scores fused with them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.outputs.lexical import LexicalOutput
from nestvec.engine.outputs.relevance import fused_ranks
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import OutputKind, Truncation
from nestvec.engine.vectors.term_table import TermTable, count_terms

from tests.api.applications import Api, MakeApi, unit_vector
from tests.support.served import SPEC, ServedOptions

CORPUS = ["alpha beta", "alpha one one", "red", "alpha gamma red"]
DOCUMENTS = ["red green", "alpha alpha one", "beta", ""]
PLAIN = TokenizeOptions(Truncation.END, adds_special_tokens=False, allows_nothing=True)


def count(tokenizer_path: Path) -> TermTable:
    """Count the terms of the corpus."""
    size = SPEC.vocabulary_size
    tokenizer = Tokenizer(tokenizer_path, max_tokens=16, vocabulary_size=size)
    ids = [value.ids for value in tokenizer.encode_texts(CORPUS, PLAIN)]
    return count_terms(ids, size, tokenizer.special_ids, SPEC.space)


@pytest.fixture
def table(tiny_folder: Path) -> TermTable:
    """Counts of the corpus."""
    return count(tiny_folder / "tokenizer.json")


@pytest.fixture
def lexical(make_api: MakeApi, table: TermTable) -> Api:
    """An application whose model gives vectors, and has counts of terms."""
    spec = dataclasses.replace(SPEC, kinds=(*SPEC.kinds, OutputKind.SPARSE))
    return make_api(ServedOptions(spec=spec, lexical=LexicalOutput(table)))


def weights(api: Api, table: TermTable, text: str, *, is_query: bool = False) -> dict[int, float]:
    """Return a text's weights by id."""
    (encoded,) = api.served.tokenizer.encode_texts([text], PLAIN)
    rows = (table.query_weights if is_query else table.document_weights)(encoded.ids)
    return {int(term): float(weight) for term, weight in rows}


def product(query: dict[int, float], document: dict[int, float]) -> float:
    """Multiply two texts' weights."""
    return sum(weight * document.get(term, 0.0) for term, weight in query.items())


def sent(terms: list[dict[str, Any]]) -> dict[int, float]:
    """Return the weights of an answer by id; they come in the order of the ids."""
    ids = [term["index"] for term in terms]
    assert ids == sorted(set(ids))
    return {term["index"]: term["value"] for term in terms}


async def test_terms_of_a_model_without_a_head(lexical: Api, table: TermTable) -> None:
    """Documents get BM25's weights, queries their frequencies; special tokens and prompts are none of them."""
    texts = ["alpha one one", "", "alpha qq [SEP]"]
    answer = await lexical.client.post("/embed_sparse", json={"inputs": texts})
    assert answer.status_code == 200, answer.text
    for text, terms in zip(texts, answer.json(), strict=True):
        assert sent(terms) == pytest.approx(weights(lexical, table, text))
    assert answer.json()[1] == []
    assert len(answer.json()[0]) == 2
    assert answer.headers["x-embed-space"] == table.space
    assert not lexical.served.backend.batches
    asked = {"inputs": ["one alpha one"], "prompt_name": "query"}
    query = (await lexical.client.post("/embed_sparse", json=asked)).json()[0]
    assert sorted(sent(query).values()) == [1, 2]
    document = (
        await lexical.client.post("/embed_sparse", json=asked | {"prompt_name": "document"})
    ).json()[0]
    assert sent(document) == pytest.approx(weights(lexical, table, "one alpha one"))
    body = {"input": "one alpha one", "input_type": "query", "output_types": ["sparse"]}
    embedded = (await lexical.embed(body)).json()["data"][0]["sparse_embedding"]
    assert dict(zip(embedded["indices"], embedded["values"], strict=True)) == sent(query)


async def test_many_texts_are_weighed_in_a_thread(lexical: Api, table: TermTable) -> None:
    """More texts than the event loop weighs come out the same."""
    texts = [f"alpha {word}" for word in ("one", "red", "beta", "two")] * 10
    rows = (await lexical.client.post("/embed_sparse", json={"inputs": texts})).json()
    for text, terms in zip(texts, rows, strict=True):
        assert sent(terms) == pytest.approx(weights(lexical, table, text))


async def test_a_side_needs_no_prompt(make_api: MakeApi, table: TermTable) -> None:
    """A model without prompts takes the names of sides; others are refused as ever."""
    spec = dataclasses.replace(SPEC, kinds=(*SPEC.kinds, OutputKind.SPARSE), prompts={})
    api = make_api(ServedOptions(spec=spec, lexical=LexicalOutput(table)))
    body = {"inputs": ["one alpha one"], "prompt_name": "query"}
    terms = (await api.client.post("/embed_sparse", json=body)).json()[0]
    assert sorted(sent(terms).values()) == [1, 2]
    wrong = await api.client.post("/embed_sparse", json=body | {"prompt_name": "nope"})
    assert (wrong.status_code, "no prompt of that name" in wrong.text) == (422, True)


async def test_terms_come_alone(lexical: Api) -> None:
    """No run gives them, so they come neither beside vectors nor of chunks."""
    joint = await lexical.embed({"input": "alpha", "output_types": ["dense", "sparse"]})
    assert (joint.status_code, joint.json()["error"]["param"]) == (400, "output_types")
    late = {"input": ["alpha", "beta"], "output_types": ["sparse"], "late_chunking": True}
    assert (await lexical.embed(late)).status_code == 400


async def test_outputs_name_terms_where_they_are(lexical: Api, make_api: MakeApi) -> None:
    """Without counts a model lists, answers and refuses what it did; with them its vectors stay."""
    plain = make_api()
    kinds = [
        (await api.client.get("/v1/models")).json()["data"][0]["outputs"]
        for api in (plain, lexical)
    ]
    assert kinds == [["dense", "tokens"], ["dense", "tokens", "sparse"]]
    refused = await plain.client.post("/embed_sparse", json={"inputs": "alpha"})
    assert refused.status_code == 424
    vectors = [
        (await api.client.post("/embed", json={"inputs": "alpha"})) for api in (plain, lexical)
    ]
    assert vectors[0].content == vectors[1].content
    assert {answer.headers["x-embed-space"] for answer in vectors} == {SPEC.space}


@pytest.mark.parametrize("share", [0.3, 1])
async def test_fused_scores_are_numpys(lexical: Api, table: TermTable, share: float) -> None:
    """A share of BM25 over its maximum, and the rest of the cosine; the header says so."""
    body = {"query": "alpha one", "documents": DOCUMENTS, "lexical_weight": share}
    answer = await lexical.client.post("/v1/rerank", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-embed-score"] == "cosine+terms"
    query = unit_vector(lexical, "query : alpha one")
    cosines = [np.dot(query, unit_vector(lexical, f"passage : {text}")) for text in DOCUMENTS]
    words = weights(lexical, table, "alpha one", is_query=True)
    products = np.array([product(words, weights(lexical, table, text)) for text in DOCUMENTS])
    assert products.max() > 0
    expected = (1 - share) * np.array(cosines) + share * products / products.max()
    results = answer.json()["results"]
    for row in results:
        assert row["relevance_score"] == pytest.approx(expected[row["index"]], abs=1e-6)
    assert [row["index"] for row in results] == np.argsort(-expected, kind="stable").tolist()


@pytest.mark.parametrize("share", [None, 0.2, 1])
async def test_fused_ranks_are_the_formulas(
    lexical: Api, table: TermTable, share: float | None
) -> None:
    """Reciprocal ranks by cosine and by terms, halves unless a share is given, and 1 for the first by both."""
    body = {"query": "alpha one", "documents": DOCUMENTS, "fusion": "rrf", "lexical_weight": share}
    answer = await lexical.client.post("/v1/rerank", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-embed-score"] == "rrf"
    query = unit_vector(lexical, "query : alpha one")
    cosines = [
        float(np.dot(query, unit_vector(lexical, f"passage : {text}"))) for text in DOCUMENTS
    ]
    words = weights(lexical, table, "alpha one", is_query=True)
    products = [product(words, weights(lexical, table, text)) for text in DOCUMENTS]
    assert min(products) == 0 < max(products)
    half = 0.5 if share is None else share
    expected = [
        61 * (1 - half) / (60 + 1 + sum(other > cosine for other in cosines))
        + (61 * half / (60 + 1 + sum(other > terms for other in products)) if terms else 0)
        for cosine, terms in zip(cosines, products, strict=True)
    ]
    results = answer.json()["results"]
    for row in results:
        assert row["relevance_score"] == pytest.approx(expected[row["index"]], abs=1e-9)
    assert [row["index"] for row in results] == np.argsort(
        -np.array(expected), kind="stable"
    ).tolist()


def test_equal_scores_have_one_rank() -> None:
    """So the order in which documents came decides nothing; what is first by both has 1."""
    cosines, products = np.array([0.5, 0.9, 0.5, 0.1]), np.array([2.0, 3.0, 2.0, 0.0])
    fused = fused_ranks(cosines, products, 0.5)
    assert fused[1] == 1
    assert fused[0] == fused[2] == pytest.approx(61 / 62)
    assert fused[3] == pytest.approx(0.5 * 61 / 64)
    assert not len(fused_ranks(np.zeros(0), np.zeros(0), 0.5))


async def test_no_common_term_leaves_cosines(lexical: Api) -> None:
    """Where nothing matches, the terms' share is zero for all."""
    body = {"query": "blue", "documents": ["red", "beta"], "lexical_weight": 0.5}
    fused = (await lexical.client.post("/v1/rerank", json=body)).json()["results"]
    plain = (await lexical.client.post("/v1/rerank", json=body | {"lexical_weight": 0})).json()
    for row, other in zip(fused, plain["results"], strict=True):
        assert row["index"] == other["index"]
        assert row["relevance_score"] == pytest.approx(other["relevance_score"] / 2)


async def test_off_is_as_before(lexical: Api, api: Api) -> None:
    """Without a weight, or with none of it, scores are the same cosines with and without counts."""
    body: dict[str, Any] = {"query": "alpha", "documents": DOCUMENTS}
    answers = [
        await each.client.post("/v1/rerank", json=body | extra)
        for each in (api, lexical)
        for extra in (
            {},
            {"lexical_weight": 0},
            {"lexical_weight": None, "fusion": None},
            {"lexical_weight": 0, "fusion": "rrf"},
        )
    ]
    assert {answer.headers["x-embed-score"] for answer in answers} == {"cosine"}
    first = answers[0].json()
    for answer in answers[1:]:
        assert answer.json()["results"] == first["results"]
        assert answer.json()["usage"] == first["usage"]


@pytest.mark.parametrize("value", ["max", "RRF", 1, ["rrf"], {"a": 1}])
async def test_a_wrong_fusion_is_refused(lexical: Api, value: object) -> None:
    """It is a word of two."""
    body = {"query": "alpha", "documents": ["beta"], "fusion": value}
    answer = await lexical.client.post("/v1/rerank", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "fusion")
    assert "weighted, rrf" in answer.text


@pytest.mark.parametrize("value", [-0.1, 1.1, True, "0.5", [0.5]])
async def test_a_wrong_weight_is_refused(lexical: Api, value: object) -> None:
    """It is a number from 0 to 1."""
    body = {"query": "alpha", "documents": ["beta"], "lexical_weight": value}
    answer = await lexical.client.post("/v1/rerank", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "lexical_weight")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "nestvec model fit --idf"),
        ({"kinds": (OutputKind.LABELS,), "labels": ("yes",)}, "cross-encoder"),
        ({"kinds": (OutputKind.TOKENS,)}, "does not score by cosine"),
    ],
    ids=["no counts", "cross-encoder", "token vectors"],
)
async def test_models_that_cannot_fuse_say_why(
    make_api: MakeApi, changes: dict[str, Any], words: str
) -> None:
    """The field is named, and what helps."""
    api = make_api(ServedOptions(spec=dataclasses.replace(SPEC, **changes)))
    body = {"query": "alpha", "documents": ["beta"], "lexical_weight": 0.5}
    answer = await api.client.post("/v1/rerank", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "lexical_weight"
    assert words in answer.text
