"""Static models as model2vec and sentence-transformers write them, against numpy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.errors import FormatError
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.folder.static_folders import find_static
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.model_store.folder.model2vec_folders import EXPECTED, VARIANTS, write_variant
from tests.model_store.folder.model2vec_folders import TEXTS as VARIANT_TEXTS
from tests.model_store.heads.serving import opened
from tests.model_store.word_tables.running import raw_vectors_of
from tests.support.tiny import vocabulary, write_json, write_tokenizer

TEXTS = ["alpha beta", "the red \u732b one", "a"]


def table() -> NDArray[np.float32]:
    """Return the embeddings of the tiny vocabulary."""
    return np.random.default_rng(2).standard_normal((128, 12)).astype(np.float32)


def averages(*, keeps_unknown: bool) -> NDArray[np.float64]:
    """Compute the unit averages of the texts' words by hand."""
    pieces = vocabulary()
    rows = []
    for text in TEXTS:
        words = [word if word in pieces else "[UNK]" for word in text.split()]
        counted = [word for word in words if keeps_unknown or word != "[UNK]"]
        rows.append(np.mean([table()[pieces.index(word)] for word in counted], axis=0))
    vectors = np.array(rows, np.float64)
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def write_model2vec(folder: Path) -> None:
    """Write a folder as model2vec's `save_pretrained` does."""
    write_json(folder / "config.json", {"model_type": "model2vec", "hidden_dim": 12})
    write_tokenizer(folder / "tokenizer.json")
    save_file({"embeddings": table()}, folder / "model.safetensors")


def write_sentence_transformers(folder: Path) -> None:
    """Write a folder as a SentenceTransformer of a StaticEmbedding and a Normalize does."""
    inside = folder / "0_StaticEmbedding"
    write_json(folder / "modules.json", chain("StaticEmbedding", "Normalize"))
    inside.mkdir()
    write_tokenizer(inside / "tokenizer.json")
    save_file({"embedding.weight": table()}, inside / "model.safetensors")


def chain(*kinds: str) -> list[dict[str, str]]:
    """Return a module list."""
    return [
        {"path": f"{n}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize("keeps_unknown", [False, True])
async def test_vectors_are_averages(tmp_path: Path, *, keeps_unknown: bool) -> None:
    """There are no special tokens; unknown words count in one library and not in the other."""
    folder = tmp_path / "model"
    folder.mkdir()
    (write_sentence_transformers if keeps_unknown else write_model2vec)(folder)
    async with opened(folder) as server:
        vectors = await server.post("/embed", {"inputs": TEXTS})
        of_unknown = await server.post("/embed", {"inputs": "\u732b"})
    np.testing.assert_allclose(vectors, averages(keeps_unknown=keeps_unknown), atol=1e-5)
    assert np.isfinite(of_unknown).all()


async def test_zeros_are_a_vector_of_a_static_model(tmp_path: Path) -> None:
    """A text of rows of zeros has a vector of zeros, as in sentence-transformers; others of the request have theirs."""
    write_sentence_transformers(tmp_path)
    rows = table()
    rows[vocabulary().index("[UNK]")] = 0
    save_file({"embedding.weight": rows}, tmp_path / "0_StaticEmbedding" / "model.safetensors")
    async with opened(tmp_path) as server:
        vectors = np.array(await server.post("/embed", {"inputs": ["alpha", "\u732b", ""]}))
    np.testing.assert_array_equal(vectors[1:], np.zeros((2, 12)))
    assert np.linalg.norm(vectors[0]) == pytest.approx(1)


def spoil_table(folder: Path, **tensors: Any) -> None:
    """Replace the folder's tensors."""
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("name", VARIANTS)
def test_a_quantised_vocabulary_and_weights_are_honoured(tmp_path: Path, name: str) -> None:
    """Vectors are those of model2vec's own library; each row may stand for several tokens."""
    write_variant(tmp_path, name)
    expected = np.array(json.loads(EXPECTED.read_text())[name])
    given = raw_vectors_of(tmp_path, VARIANT_TEXTS)
    np.testing.assert_allclose(given, expected, rtol=2e-3 if name == "float16" else 1e-5, atol=1e-4)


def test_a_mapping_to_rows_that_there_are_not_is_refused(tmp_path: Path) -> None:
    """At export, when the table is read."""
    write_model2vec(tmp_path)
    for mapping in (np.full(128, 128), np.full(128, -1), np.zeros(128, np.float32)):
        spoil_table(tmp_path, embeddings=table(), mapping=mapping)
        with pytest.raises(FormatError, match="'mapping'"):
            raw_vectors_of(tmp_path, ["alpha"])


def test_a_table_without_them_keeps_its_space(tmp_path: Path) -> None:
    """The config of a plain folder is part of its fingerprint."""
    write_model2vec(tmp_path)
    static = find_static(tmp_path)
    assert static is not None
    assert static.config == {"model_type": "static", "vocab_size": 128, "hidden_size": 12}


def test_tensors_that_sentence_transformers_does_not_read_are_refused(tmp_path: Path) -> None:
    """They stand in folders of model2vec's only."""
    write_sentence_transformers(tmp_path)
    inside = tmp_path / "0_StaticEmbedding"
    spoil_table(inside, **{"embedding.weight": table(), "weights": np.ones(128, np.float32)})
    with pytest.raises(FormatError, match=r"'weights'.*model2vec"):
        read_model_folder(tmp_path)


def test_prompts_beside_the_module_are_honoured(tmp_path: Path) -> None:
    """They lie in the model's folder; names without texts, which the library writes into every one, are none."""
    write_sentence_transformers(tmp_path)
    path = tmp_path / "config_sentence_transformers.json"
    write_json(path, {"prompts": {"query": "", "document": ""}, "default_prompt_name": None})
    assert read_model_folder(tmp_path).prompts == {}
    prompts = {"query": "the ", "document": ""}
    write_json(path, {"prompts": prompts, "default_prompt_name": "query"})
    folder = read_model_folder(tmp_path)
    assert (folder.prompts, folder.default_prompt) == ({"query": "the "}, "query")


def test_what_would_have_to_be_ignored_is_refused(tmp_path: Path) -> None:
    """Tensors that do not fit, another module, no table and a path outside are refused."""
    write_model2vec(tmp_path)
    for tensors, words in (
        ({"mapping": np.zeros((2, 2))}, "'mapping'.*one value for each token"),
        ({"weights": np.ones(3, np.float32)}, "3 values for 128 tokens"),
        ({"mapping": np.zeros(128, int), "weights": np.ones(3)}, "one value for each token"),
    ):
        spoil_table(tmp_path, embeddings=table(), **tensors)
        with pytest.raises(FormatError, match=words):
            read_model_folder(tmp_path)
    spoil_table(tmp_path, other=table())
    with pytest.raises(FormatError, match="no tensor embedding"):
        read_model_folder(tmp_path)
    write_json(tmp_path / "modules.json", chain("StaticEmbedding", "Dense"))
    with pytest.raises(FormatError, match="'Dense' is not supported"):
        read_model_folder(tmp_path)
    write_json(
        tmp_path / "modules.json",
        [{"path": "..", "type": "sentence_transformers.models.StaticEmbedding"}],
    )
    with pytest.raises(FormatError, match="leaves the folder"):
        read_model_folder(tmp_path)
