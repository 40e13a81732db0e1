"""Token vectors that are compared one by one: ColBERT and BGE-M3 over HTTP, against transformers and numpy."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.backend import Backend
from nestvec.engine.core import batch_runner, worker
from nestvec.engine.core.batch_runner import BatchOutput
from nestvec.engine.types import Item
from nestvec.engine.vectors.token_vectors import max_sim, pool_tokens
from nestvec.errors import FormatError
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.heads.late import M3_SPARSE, M3_TOKENS
from safetensors.numpy import load_file, save_file

from tests.export.families.weights import random_weights
from tests.model_store.heads.make_constants import COLBERT_TOKENS, MARKERS
from tests.model_store.heads.serving import STORED, Opened, opened, write_case
from tests.model_store.heads.texts import TEXTS
from tests.support.tiny import vocabulary, write_json

TOLERANCE = 1e-4
URL = "/v1/embeddings"


def write_colbert(folder: Path) -> dict[str, Any]:
    """Write a folder as ColBERT's own code stores it."""
    case = write_case(folder, "colbert")
    markers = [vocabulary()[number] for number in MARKERS]
    write_json(
        folder / "artifact.metadata",
        {
            "query_token_id": markers[0],
            "doc_token_id": markers[1],
            "query_maxlen": COLBERT_TOKENS,
            "doc_maxlen": 30,
            "mask_punctuation": True,
            "attend_to_mask_tokens": False,
        },
    )
    return case


def write_pylate(folder: Path) -> dict[str, Any]:
    """Write the same model as PyLate and sentence-transformers store it."""
    case = write_case(folder, "colbert")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    projection = tensors.pop("linear.weight")
    save_file(tensors, path)
    write_json(folder / "config.json", {**case["config"], "architectures": ["BertModel"]})
    sizes = {"in_features": 32, "out_features": 8, "bias": False}
    linear = {"activation_function": "torch.nn.modules.linear.Identity", **sizes}
    write_json(folder / "1_Dense/config.json", linear)
    save_file({"linear.weight": projection}, folder / "1_Dense/model.safetensors")
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ]
    write_json(folder / "modules.json", modules)
    markers = [vocabulary()[number] for number in MARKERS]
    settings = {"query_prefix": markers[0], "document_prefix": markers[1], "document_length": 30}
    settings |= {"query_length": COLBERT_TOKENS, "skiplist_words": [":", "!"]}
    write_json(folder / "config_sentence_transformers.json", settings)
    return case


async def tokens(server: Opened, role: str) -> list[np.ndarray[Any, Any]]:
    """Return vectors of the texts' tokens."""
    body = {"inputs": TEXTS, "prompt_name": role}
    return [np.array(rows) for rows in await server.post("/embed_all", body)]


@pytest.mark.parametrize("write", [write_colbert, write_pylate])
async def test_token_vectors_are_transformers(tmp_path: Path, write: Any) -> None:
    """Markers, unseen expansion of queries and left-out punctuation of documents are as in transformers."""
    case = write(tmp_path / "model")
    async with opened(tmp_path / "model") as server:
        queries, documents = await tokens(server, "query"), await tokens(server, "document")
        body = {"query": TEXTS[0], "documents": TEXTS}
        ranked = await server.client.post("/v2/rerank", json=body)
        refused = await server.client.post("/v1/embeddings", json={"input": "alpha"})
        pooled = await server.post("/pooling", {"input": TEXTS})
    for roles, expected in zip((queries, documents), ("queries", "documents"), strict=True):
        for vectors, wanted in zip(roles, case[expected], strict=True):
            np.testing.assert_allclose(vectors, wanted, atol=TOLERANCE)
    assert {len(vectors) for vectors in queries} == {COLBERT_TOKENS}
    assert ranked.headers["x-embed-score"] == "max-sim"
    scores = {row["index"]: row["relevance_score"] for row in ranked.json()["results"]}
    for index, document in enumerate(documents):
        expected_score = (queries[0] @ document.T).max(axis=1).sum()
        assert scores[index] == pytest.approx(expected_score, abs=1e-5)
    assert refused.status_code == 400
    assert "late-interaction" in refused.json()["error"]["message"]
    assert [len(row["data"]) for row in pooled["data"]] == [len(vectors) for vectors in documents]


async def test_several_projections(tmp_path: Path) -> None:
    """Layers before the last one apply too: here one that changes nothing."""
    case = write_pylate(tmp_path / "model")
    (tmp_path / "model/1_Dense").rename(tmp_path / "model/2_Dense")
    sizes = {"in_features": 32, "out_features": 32, "bias": False}
    linear = {"activation_function": "torch.nn.modules.linear.Identity", **sizes}
    write_json(tmp_path / "model/1_Dense/config.json", linear)
    identity = {"linear.weight": np.eye(32, dtype=np.float32)}
    save_file(identity, tmp_path / "model/1_Dense/model.safetensors")
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules += [{"path": f"{n}_Dense", "type": "pylate.models.Dense.Dense"} for n in (1, 2)]
    write_json(tmp_path / "model/modules.json", modules)
    async with opened(tmp_path / "model") as server:
        queries = await tokens(server, "query")
    for vectors, wanted in zip(queries, case["queries"], strict=True):
        np.testing.assert_allclose(vectors, wanted, atol=TOLERANCE)


async def test_expansion_that_is_seen(tmp_path: Path) -> None:
    """Where a model was trained so, the query's own tokens change with its expansion."""
    write_colbert(tmp_path / "model")
    async with opened(tmp_path / "model") as server:
        hidden = await tokens(server, "query")
    path = tmp_path / "model/artifact.metadata"
    path.write_text(path.read_text().replace("false", "true"))
    async with opened(tmp_path / "model") as server:
        seen = await tokens(server, "query")
    assert np.abs(hidden[0] - seen[0]).max() > 0.01


async def test_merged_tokens(tmp_path: Path) -> None:
    """There are fewer vectors, of unit length; the first stays as it was."""
    write_colbert(tmp_path / "model")
    async with opened(tmp_path / "model") as server:
        plain = await server.post("/pooling", {"input": TEXTS[1]})
        merged = await server.post("/pooling", {"input": TEXTS[1], "pool_factor": 3})
        wrong = await server.client.post("/pooling", json={"input": "a", "pool_factor": 0})
        all_vectors, merged_vectors = (
            np.array(answer["data"][0]["data"]) for answer in (plain, merged)
        )
    assert len(merged_vectors) == 1 + (len(all_vectors) - 1) // 3
    np.testing.assert_allclose(np.linalg.norm(merged_vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(merged_vectors[0], all_vectors[0], atol=1e-6)
    assert wrong.status_code == 400


def write_m3(folder: Path) -> dict[str, Any]:
    """Write a folder shaped as BGE-M3's, with its layers in safetensors."""
    case = write_case(folder, "bge-m3")
    layers = random_weights(case["extra"], STORED["seed"])
    for name, short in ((M3_SPARSE, "s"), (M3_TOKENS, "c")):
        parts = {"weight": layers[f"{short}.weight"], "bias": layers[f"{short}.bias"]}
        save_file(parts, folder / f"{name}.safetensors")
    write_json(folder / "1_Pooling/config.json", {"pooling_mode": "cls"})
    return case


async def test_three_outputs_of_one_model(tmp_path: Path) -> None:
    """One model gives dense, sparse and token vectors, and rerank's `lexical_weight` fuses the first two."""
    case = write_m3(tmp_path / "model")
    async with opened(tmp_path / "model") as server:
        dense = await server.post("/embed", {"inputs": TEXTS})
        sparse = await server.post("/embed_sparse", {"inputs": TEXTS})
        token_vectors = await tokens(server, "document")
        body = {"query": TEXTS[1], "documents": TEXTS, "lexical_weight": 0.4}
        reranked = (await server.post("/v1/rerank", body))["results"]
        listed = (await server.client.get("/v1/models")).json()["data"][0]
    np.testing.assert_allclose(dense, case["dense"], atol=TOLERANCE)
    for rows, expected in zip(sparse, case["terms"], strict=True):
        assert [row["index"] for row in rows] == [term for term, _ in expected]
        weights = [row["value"] for row in rows]
        np.testing.assert_allclose(weights, [w for _, w in expected], atol=TOLERANCE)
    for vectors, wanted in zip(token_vectors, case["tokens"], strict=True):
        np.testing.assert_allclose(vectors, wanted, atol=TOLERANCE)
    assert listed["outputs"] == ["dense", "sparse", "tokens"]
    scores = {row["index"]: row["relevance_score"] for row in reranked}
    given = [scores[number] for number in range(len(TEXTS))]
    np.testing.assert_allclose(given, fused(case, 0.4), atol=TOLERANCE)


async def test_several_outputs_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`output_types` gives, of one run, what a call for each kind gives: each text goes through the graph once."""
    write_m3(tmp_path / "model")
    lengths: list[list[int]] = []
    run_items = batch_runner.run_items

    def counted(backend: Backend, items: Sequence[Item], *rest: Any, **options: Any) -> BatchOutput:
        lengths.append([item.tokens for item in items])
        return run_items(backend, items, *rest, **options)

    monkeypatch.setattr(worker, "run_items", counted)
    kinds = ("dense", "sparse", "tokens")
    names = {"dense": "embedding", "sparse": "sparse_embedding", "tokens": "embeddings"}
    async with opened(tmp_path / "model") as server:
        alone = {}
        for kind in kinds:
            answer = await server.post(URL, {"input": TEXTS, "output_types": [kind]})
            alone[kind] = [row[names[kind]] for row in answer["data"]]
        dense = await server.post("/embed", {"inputs": TEXTS})
        sparse = await server.post("/embed_sparse", {"inputs": TEXTS})
        token_vectors = await tokens(server, "document")
        for count in (2, 3):
            for asked in itertools.permutations(kinds, count):
                lengths.clear()
                body = {"input": TEXTS, "output_types": asked}
                answer = await server.post(URL, body)
                assert sum(map(sum, lengths)) == answer["usage"]["prompt_tokens"]
                assert sum(map(len, lengths)) == len(TEXTS)
                for number, row in enumerate(answer["data"]):
                    assert row.keys() == {"object", "index", *(names[kind] for kind in asked)}
                    for kind in asked:
                        check_output(row[names[kind]], alone[kind][number])
        short = {"input": TEXTS, "output_types": kinds, "dimensions": 4, "output_dtype": "float16"}
        cut = (await server.post(URL, short))["data"]
    check_output(alone["dense"], dense)
    for terms, rows in zip(alone["sparse"], sparse, strict=True):
        assert terms["indices"] == [row["index"] for row in rows]
        assert terms["values"] == pytest.approx([row["value"] for row in rows], abs=1e-6)
    for number, wanted in enumerate(token_vectors):
        check_output(alone["tokens"][number], wanted)
        rows = np.array(wanted)[:, :4]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(cut[number]["embeddings"], rows, atol=1e-3)
        assert len(cut[number]["embedding"]) == 4
        assert cut[number]["sparse_embedding"]["indices"] == alone["sparse"][number]["indices"]


def fused(case: dict[str, Any], share: float) -> np.ndarray[Any, Any]:
    """Return the scores of all texts for the second: cosines, and products of terms over the greatest."""
    vectors, terms = np.array(case["dense"]), [dict(rows) for rows in case["terms"]]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    products = [sum(w * own.get(term, 0) for term, w in terms[1].items()) for own in terms]
    scores = (1 - share) * vectors @ vectors[1] + share * np.array(products) / max(products)
    return np.asarray(scores)


def check_output(given: Any, wanted: Any) -> None:
    """Compare a vector, vectors, or terms."""
    if isinstance(given, dict):
        assert given["indices"] == wanted["indices"]
        given, wanted = given["values"], wanted["values"]
    np.testing.assert_allclose(given, wanted, atol=1e-6)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """Tokens that the tokenizer lacks, and settings that make no sense, are refused."""
    write_colbert(tmp_path)
    for changed, named in (
        ({"query_token_id": "[never]"}, "never"),
        ({"query_maxlen": "long"}, "query_maxlen"),
        ({"doc_maxlen": 1}, "doc_maxlen"),
    ):
        write_json(tmp_path / "artifact.metadata", changed)
        with pytest.raises(FormatError, match=named):
            read_model_folder(tmp_path)


def test_max_sim_by_hand() -> None:
    """Each of the query's tokens counts with its nearest token of the document."""
    query = np.array([[1, 0], [0, 1]], np.float32)
    documents = [np.array([[1, 0], [0.6, 0.8]], np.float32), np.array([[0, -1]], np.float32)]
    assert max_sim(query, documents) == pytest.approx([1.8, -1.0])


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_merging_keeps_every_token_once(count: int, factor: int, seed: int) -> None:
    """There are as few vectors as requested, and the first token stays alone."""
    vectors = np.random.default_rng(seed).standard_normal((count, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    merged = pool_tokens(vectors, factor)
    if factor == 1 or count <= 2:
        assert merged is vectors
    else:
        assert len(merged) == 1 + max((count - 1) // factor, 1)
        np.testing.assert_array_equal(merged[0], vectors[0])
        assert np.abs(merged).max() <= 1 + 1e-6


def test_like_tokens_are_merged() -> None:
    """Two bundles of directions become two vectors."""
    first, second = np.eye(4, dtype=np.float32)[:2]
    vectors = np.stack([first + second, first, second, first * 0.99, second * 0.98])
    merged = pool_tokens(vectors, 2)
    np.testing.assert_allclose(merged[1:], [first * 0.995, second * 0.99], atol=1e-6)
