"""Cross-encoders and classifiers over HTTP, against transformers' own scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.errors import FormatError
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.heads.classifier import FORMS, read_activation, read_labels

from tests.model_store.heads.serving import CASES, opened, write_case
from tests.model_store.heads.texts import PAIRS, TEXTS
from tests.support.tiny import write_json

TOLERANCE = 1e-4
CLASSIFIERS = [name for name in CASES if name.startswith("classifier/")]
ITEMS = [*map(list, PAIRS), *([text] for text in TEXTS)]


def sigmoid(value: float) -> float:
    """Compute the sigmoid of a number."""
    return float(1 / (1 + np.exp(-value)))


def test_every_family_has_a_case() -> None:
    """But those whose form is another's: BERT's or that of decoders."""
    named = {name.partition("/")[2].partition("~")[0] for name in CLASSIFIERS}
    same = {"jina_bert", "ernie", "bloom", "gemma", "gemma2", "phi3"}
    assert all(FORMS[name] in (FORMS["bert"], FORMS["llama"]) for name in same)
    assert named == set(FORMS) - same


@pytest.mark.parametrize("name", CLASSIFIERS)
async def test_scores_of_pairs_and_texts(tmp_path: Path, name: str) -> None:
    """Scores are transformers', raw and as probabilities that sum to one."""
    case = write_case(tmp_path / "model", name)
    expected = np.array(case["scores"])
    async with opened(tmp_path / "model") as server:
        raw = await server.post("/predict", {"inputs": ITEMS, "raw_scores": True})
        probabilities = await server.post("/predict", {"inputs": ITEMS})
        alone = await server.post("/predict", {"inputs": list(PAIRS[0]), "raw_scores": True})
        info = (await server.client.get("/info")).json()
    for row, wanted in zip(raw, expected, strict=True):
        by_label = {entry["label"]: entry["score"] for entry in row}
        scores = [by_label[f"LABEL_{n}"] for n in range(len(wanted))]
        np.testing.assert_allclose(scores, wanted, atol=TOLERANCE)
        assert [entry["score"] for entry in row] == sorted(scores, reverse=True)
    for row in probabilities:
        assert sum(entry["score"] for entry in row) == pytest.approx(1)
    assert [entry["label"] for entry in alone] == [entry["label"] for entry in raw[0]]
    assert set(info["model_type"]) == {"classifier"}


async def test_a_reranker_in_every_dialect(tmp_path: Path) -> None:
    """Order and scores are the same, by the activation of its files or of TEI."""
    case = write_case(tmp_path / "model", "reranker")
    query = PAIRS[0][0]
    documents = [PAIRS[0][1], *TEXTS]
    async with opened(tmp_path / "model") as server:
        pairs = [[query, document] for document in documents]
        raw = await server.post("/predict", {"inputs": pairs, "raw_scores": True})
        logits = [row[0]["score"] for row in raw]
        assert logits[0] == pytest.approx(case["scores"][0][0], abs=TOLERANCE)
        order = np.argsort([-logit for logit in logits], kind="stable").tolist()
        expected = [sigmoid(logits[n]) for n in order]

        tei = await server.post("/rerank", {"query": query, "texts": documents})
        assert [row["index"] for row in tei] == order
        np.testing.assert_allclose([row["score"] for row in tei], expected, atol=1e-6)
        assert "text" not in tei[0]
        body = {"query": query, "texts": documents, "return_text": True, "raw_scores": True}
        texts = await server.post("/", body)
        assert [row["text"] for row in texts] == [documents[n] for n in order]
        np.testing.assert_allclose([r["score"] for r in texts], sorted(logits)[::-1], atol=1e-6)

        body = {"query": query, "documents": documents, "top_n": 2}
        for path in ("/v2/rerank", "/v1/rerank", "/rerank"):
            answer = await server.client.post(path, json=body)
            results = answer.json()["results"]
            assert [row["index"] for row in results] == order[:2]
            np.testing.assert_allclose([r["relevance_score"] for r in results], expected[:2])
            assert answer.headers["x-embed-score"] == "cross-encoder"
        scores = await server.post("/score", {"queries": query, "documents": documents})
        in_order = [row["score"] for row in scores["data"]]
        np.testing.assert_allclose(in_order, [sigmoid(logit) for logit in logits], atol=1e-6)
        labels = await server.post("/classify", {"input": TEXTS})
        assert [row["num_classes"] for row in labels["data"]] == [1] * len(TEXTS)
        assert (await server.client.get("/info")).json()["model_type"].keys() == {"reranker"}


async def test_what_a_reranker_does_not_give(tmp_path: Path) -> None:
    """Vectors are refused in each dialect's shape; a classifier of three labels re-ranks nothing."""
    write_case(tmp_path / "model", "reranker")
    async with opened(tmp_path / "model") as server:
        answer = await server.client.post("/v1/embeddings", json={"input": "alpha"})
        assert answer.status_code == 400
        assert "re-ranker" in answer.json()["error"]["message"]
        answer = await server.client.post("/embed", json={"inputs": "alpha"})
        assert answer.status_code == 424
    write_case(tmp_path / "other", "classifier/bert")
    async with opened(tmp_path / "other") as server:
        for path, body in (
            ("/rerank", {"query": "alpha", "texts": ["beta"]}),
            ("/v2/rerank", {"query": "alpha", "documents": ["beta"]}),
        ):
            answer = await server.client.post(path, json=body)
            assert answer.status_code in (400, 424), answer.text
            assert "re-ranker" in answer.text


async def test_long_pairs_lose_of_the_longer_text(tmp_path: Path) -> None:
    """A pair that is too long is refused or cut as single texts are."""
    write_case(tmp_path / "model", "reranker")
    long = " ".join(["red"] * 60)
    async with opened(tmp_path / "model") as server:
        pair = {"inputs": [["alpha", "beta"], ["alpha", long]], "truncate": False}
        answer = await server.client.post("/predict", json=pair)
        assert answer.status_code == 422
        assert "Given: 64" in answer.json()["error"]
        cut = await server.post("/predict", {"inputs": ["alpha", long], "raw_scores": True})
        shortened = " ".join(["red"] * (40 - 3 - 1))
        same = await server.post("/predict", {"inputs": ["alpha", shortened], "raw_scores": True})
        assert cut[0]["score"] == pytest.approx(same[0]["score"], abs=1e-6)


@pytest.mark.parametrize(
    "wrong", [[], ["a", "b", "c"], [["a", "b", "c"]], [[]], [["a"], 7], 7, None, {"a": 1}]
)
async def test_wrong_pairs(tmp_path: Path, wrong: Any) -> None:
    """They are refused in TEI's shape."""
    write_case(tmp_path / "model", "reranker")
    async with opened(tmp_path / "model") as server:
        answer = await server.client.post("/predict", json={"inputs": wrong})
        assert answer.status_code in (400, 422)
        assert set(answer.json()) == {"error", "error_type"}


def test_labels_and_activations_of_files() -> None:
    """Both are read as transformers and sentence-transformers write them."""
    assert read_labels({"id2label": {"1": "no", "0": "yes"}}) == ("yes", "no")
    assert read_labels({"num_labels": 1}) == ("LABEL_0",)
    for wrong in ({"id2label": {"1": "no"}}, {"id2label": {"a": "no"}}, {"num_labels": 0}):
        with pytest.raises(FormatError, match="label"):
            read_labels(wrong)
    identity = {"activation_fn": "torch.nn.modules.linear.Identity"}
    assert read_activation({"sentence_transformers": identity}, 1) == "identity"
    old = {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}
    assert read_activation(old, 1) == "sigmoid"
    assert read_activation({}, 3) == "softmax"
    assert read_activation({"problem_type": "multi_label_classification"}, 3) == "sigmoid"
    with pytest.raises(FormatError, match="activation"):
        read_activation({"sbert_ce_default_activation_function": "my.Own"}, 1)


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    """An unknown pooling of a classifier is refused by name."""
    case = write_case(tmp_path, "classifier/modernbert")
    write_json(tmp_path / "config.json", {**case["config"], "classifier_pooling": "first"})
    with pytest.raises(FormatError, match="classifier_pooling"):
        read_model_folder(tmp_path)
