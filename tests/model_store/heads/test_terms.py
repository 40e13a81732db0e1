"""Sparse models over HTTP: SPLADE against transformers, and queries by stored weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.types import Layout
from nestvec.engine.vectors.pooler import BackendRows
from nestvec.errors import FormatError
from nestvec.export.layers.graph_heads import Dense, export_vocabulary
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.heads.sparse import FORMS
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from tests.export.families.harness import load, states
from tests.model_store.heads.serving import CASES, opened, write_case
from tests.model_store.heads.texts import TEXTS
from tests.support.tiny import write_json, write_tokenizer

TOLERANCE = 1e-4
SPLADES = [name for name in CASES if name.startswith("splade/")]


def add_pooling(folder: Path, **settings: Any) -> None:
    """Write the modules of sentence-transformers' SparseEncoder."""
    kinds = [("", "MLMTransformer"), ("1_SpladePooling", "SpladePooling")]
    modules = [
        {"path": path, "type": f"sentence_transformers.sparse_encoder.models.{kind}"}
        for path, kind in kinds
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_SpladePooling/config.json", settings)


def dense(rows: list[dict[str, float]], width: int) -> np.ndarray[Any, Any]:
    """Return terms, whose ids must ascend, as a vector."""
    ids = [int(row["index"]) for row in rows]
    assert ids == sorted(set(ids))
    assert all(row["value"] > 0 for row in rows)
    vector = np.zeros(width)
    vector[ids] = [row["value"] for row in rows]
    return vector


def test_every_family_has_a_case() -> None:
    """RoBERTa stands for those of its shape; Qwen3, of which no class is a masked language model, has its own test."""
    named = {name.partition("/")[2] for name in SPLADES}
    assert named == set(FORMS) - {"camembert", "gte", "qwen3", "xlm-roberta"}


@pytest.mark.parametrize("is_tied", [True, False])
async def test_terms_of_a_causal_models_head(tmp_path: Path, *, is_tied: bool) -> None:
    """The head has no layer before the vocabulary and no bias, and may be the word embeddings."""
    family = load("qwen3")
    family.config["is_causal"] = False
    folder = tmp_path / "model"
    family.write(folder, prefix="" if is_tied else "model.")
    write_tokenizer(folder / "tokenizer.json")
    add_pooling(folder, pooling_strategy="max", activation_function="relu")
    table = family.tensors["embed_tokens.weight"]
    if not is_tied:
        tensors = load_file(folder / "model.safetensors")
        table = np.random.default_rng(3).standard_normal(table.shape).astype(np.float32)
        save_file({**tensors, "lm_head.weight": table}, folder / "model.safetensors")
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.no_padding()
    library.no_truncation()
    encoder = family.open(tmp_path / "encoder")
    async with opened(folder) as server:
        answers = await server.post("/embed_sparse", {"inputs": TEXTS})
    for text, rows in zip(TEXTS, answers, strict=True):
        logits = states(encoder, [library.encode(text).ids]) @ table.T
        expected = np.log1p(np.maximum(logits, 0)).max(axis=0)
        np.testing.assert_allclose(dense(rows, 128), expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", SPLADES)
async def test_terms_are_transformers(tmp_path: Path, name: str) -> None:
    """Weights are transformers', together and alone, on TEI's route and at its root."""
    case = write_case(tmp_path / "model", name)
    add_pooling(tmp_path / "model", pooling_strategy="max", activation_function="relu")
    async with opened(tmp_path / "model") as server:
        together = await server.post("/embed_sparse", {"inputs": TEXTS})
        alone = [(await server.post("/", {"inputs": text}))[0] for text in TEXTS]
        info = (await server.client.get("/info")).json()
        refused = await server.client.post("/v1/embeddings", json={"input": "alpha"})
    for expected, *answers in zip(case["terms"], together, alone, strict=True):
        for rows in answers:
            np.testing.assert_allclose(dense(rows, 128), expected, atol=TOLERANCE)
    assert info["model_type"] == {"embedding": {"pooling": "splade"}}
    assert refused.status_code == 400
    assert "sparse" in refused.json()["error"]["message"]


@pytest.mark.parametrize("merge", ["max", "sum"])
@pytest.mark.parametrize("logarithms", [1, 2])
def test_poolings_of_terms(tmp_path: Path, merge: str, logarithms: int) -> None:
    """Maximum and sum of one or two logarithms are as their formulas say."""
    random = np.random.default_rng(3)
    layer = Dense(
        random.standard_normal((4, 9)).astype(np.float32),
        random.standard_normal(9).astype(np.float32),
    )
    path = tmp_path / "head.onnx"
    export_vocabulary(layer, path, merge=merge, logarithms=logarithms)
    rows = random.standard_normal((5, 4)).astype(np.float32)
    pooled = BackendRows(OnnxBackend(path, Layout.ROWS, BackendOptions()))(rows)
    weights = np.maximum(rows @ layer.weight + layer.bias, 0)
    for _ in range(logarithms):
        weights = np.log1p(weights)
    expected = weights.max(0) if merge == "max" else weights.sum(0)
    np.testing.assert_allclose(pooled[0], expected, rtol=1e-5)


async def test_queries_by_stored_weights(tmp_path: Path) -> None:
    """No model runs: each token counts once, by idf.json; tokens without a weight are left out."""
    write_case(tmp_path / "model", "splade/bert")
    add_pooling(tmp_path / "model")
    write_json(tmp_path / "model/idf.json", {"red": 2.5, "blue": 1.25, "unheard": 3.0})
    async with opened(tmp_path / "model") as server:
        body = {"inputs": ["blue red red the", "the"], "prompt_name": "query"}
        queries = await server.post("/embed_sparse", body)
        documents = await server.post("/embed_sparse", {"inputs": TEXTS, "prompt_name": "document"})
    ids = (14, 15)
    assert [row["value"] for row in queries[0]] == [2.5, 1.25]
    assert queries[0][0]["index"] < queries[0][1]["index"]
    assert queries[1] == []
    assert len(ids) == 2
    np.testing.assert_allclose(
        dense(documents[0], 128), CASES["splade/bert"]["terms"][0], atol=TOLERANCE
    )


async def test_a_decoder_of_its_own_is_taken(tmp_path: Path) -> None:
    """Where the vocabulary's weights are not tied to the word embeddings, they are used."""
    write_case(tmp_path / "model", "splade/distilbert")
    add_pooling(tmp_path / "model")
    path = tmp_path / "model/model.safetensors"
    tensors = load_file(path)
    zeros = np.zeros((128, 32), np.float32)
    bias = np.zeros(128, np.float32)
    bias[7] = 1.0
    save_file({**tensors, "vocab_projector.weight": zeros, "vocab_projector.bias": bias}, path)
    async with opened(tmp_path / "model") as server:
        terms = await server.post("/embed_sparse", {"inputs": "alpha"})
    assert terms == [[{"index": 7, "value": pytest.approx(np.log(2), abs=1e-6)}]]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"pooling_strategy": "mean"}, "SpladePooling"),
        ({"activation_function": ["relu"]}, "SpladePooling"),
        ({"activation_function": "gelu"}, "SpladePooling"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, settings: Any, named: str) -> None:
    """They are never ignored: terms would be wrong."""
    write_case(tmp_path, "splade/bert")
    add_pooling(tmp_path, **settings)
    with pytest.raises(FormatError, match=named):
        read_model_folder(tmp_path)
