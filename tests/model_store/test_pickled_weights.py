"""Models whose weights are as torch saves them: BGE-M3 and dense layers as published, and what the setting forbids."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.errors import FormatError
from nestvec.model_store.artefacts.fingerprint import HashCache, space_fingerprint
from nestvec.model_store.folder.gate import folder_claims
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.heads.late import M3Head
from nestvec.model_store.sources.checkpoints import read_tensors
from safetensors.numpy import load_file

from tests.export.families.weights import random_weights
from tests.model_store.folder.test_own_graph import write_graph
from tests.model_store.heads.serving import STORED, opened, write_case
from tests.model_store.heads.test_dense import TANH, add_layers
from tests.model_store.heads.texts import TEXTS
from tests.support.tiny import write_json, write_tiny_bert
from tests.support.torch_files import save_torch

TOLERANCE = 1e-5


def pickle_weights(folder: Path) -> None:
    """Write a folder's safetensors as torch would have."""
    path = folder / "model.safetensors"
    save_torch(load_file(path), folder / "pytorch_model.bin")
    path.unlink()


def write_m3(folder: Path) -> dict[str, Any]:
    """Write a folder as BGE-M3 is published: three pickles and a graph that gives states alone."""
    case = write_case(folder, "bge-m3")
    pickle_weights(folder)
    layers = random_weights(case["extra"], STORED["seed"])
    for name, short in (("sparse_linear", "s"), ("colbert_linear", "c")):
        parts = {part: layers[f"{short}.{part}"] for part in ("weight", "bias")}
        save_torch(parts, folder / f"{name}.pt")
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{k}"} for path, k in kinds]
    write_json(folder / "modules.json", modules)
    flags = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
    write_json(folder / "1_Pooling/config.json", flags)
    write_graph(folder / "onnx/model.onnx")
    return case


async def test_bge_m3_as_published_gives_its_three_outputs(tmp_path: Path) -> None:
    """Dense, sparse and token vectors are those of the published formulas, from the published files."""
    case = write_m3(tmp_path / "model")
    async with opened(tmp_path / "model") as server:
        dense = await server.post("/embed", {"inputs": TEXTS})
        sparse = await server.post("/embed_sparse", {"inputs": TEXTS})
        body = {"input": TEXTS, "input_type": "document", "encoding_format": "float"}
        tokens = await server.post("/pooling", {**body, "task": "token_embed"})
    np.testing.assert_allclose(dense, case["dense"], atol=TOLERANCE)
    for rows, expected in zip(sparse, case["terms"], strict=True):
        assert [row["index"] for row in rows] == [term for term, _ in expected]
        weights = [row["value"] for row in rows]
        np.testing.assert_allclose(weights, [w for _, w in expected], atol=TOLERANCE)
    for row, wanted in zip(tokens["data"], case["tokens"], strict=True):
        np.testing.assert_allclose(row["data"], wanted, atol=TOLERANCE)


def test_without_the_setting_bge_m3_is_its_graph(tmp_path: Path) -> None:
    """Nothing of torch's is opened: the folder's own graph gives dense vectors, as it did before."""
    write_m3(tmp_path)
    for path in (*tmp_path.glob("*.bin"), *tmp_path.glob("*.pt")):
        path.write_bytes(b"not to be opened")
    model = read_model_folder(tmp_path, reads_pickles=False)
    assert model.onnx_file == "onnx/model.onnx"
    assert not isinstance(model.head, M3Head)


async def test_vectors_are_those_of_the_safetensors(tmp_path: Path) -> None:
    """The same numbers in the other format give the same vectors, dense layers included."""
    vectors = []
    for name in ("safe", "pickled"):
        folder = write_tiny_bert(tmp_path / name)
        add_layers(folder, (32, 20, TANH))
        if name == "pickled":
            pickle_weights(folder)
            pickle_weights(folder / "2_Dense")
        async with opened(folder) as server:
            vectors.append(await server.post("/embed", {"inputs": TEXTS}))
    assert vectors[0] == vectors[1]


def test_without_the_setting_nothing_is_opened(tmp_path: Path) -> None:
    """An encoder or a layer that is pickled alone is refused by the setting's name, unread."""
    folder = write_tiny_bert(tmp_path / "encoder")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FormatError, match="read_pickles is off"):
        read_model_folder(folder, reads_pickles=False)
    refused = [claim.reason for claim in folder_claims(folder, reads_pickles=False)]
    assert any("read_pickles is off" in reason for reason in refused)
    folder = write_tiny_bert(tmp_path / "layer")
    add_layers(folder, (32, 20, TANH))
    (folder / "2_Dense/model.safetensors").rename(folder / "2_Dense/pytorch_model.bin")
    with pytest.raises(FormatError, match=r"2_Dense.*read_pickles is off"):
        read_model_folder(folder, reads_pickles=False)


def test_what_was_served_from_a_graph_still_is(tmp_path: Path) -> None:
    """Where a folder has a graph beside the pickle, which gives all that the model can, its space stays its own."""
    folder = write_tiny_bert(tmp_path / "model")
    pickle_weights(folder)
    write_graph(folder / "onnx/model.onnx")
    models = [read_model_folder(folder, reads_pickles=reads) for reads in (True, False)]
    assert {model.onnx_file for model in models} == {"onnx/model.onnx"}
    hashes = HashCache(tmp_path / "hashes")
    assert len({space_fingerprint(model, hashes) for model in models}) == 1


def test_pickles_are_not_merged(tmp_path: Path) -> None:
    """Checkpoints that are merged into new ones must be safetensors."""
    folder = write_tiny_bert(tmp_path)
    pickle_weights(folder)
    with pytest.raises(FormatError, match="not merged"):
        read_tensors(folder)
