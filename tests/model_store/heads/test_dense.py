"""Dense modules behind the pooling, against numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.errors import FormatError
from nestvec.model_store.artefacts.fingerprint import HashCache, space_fingerprint
from nestvec.model_store.folder.model_folder import read_model_folder
from safetensors.numpy import save_file

from tests.model_store.heads.serving import opened
from tests.support.tiny import write_json, write_tiny_bert

TANH = "torch.nn.modules.activation.Tanh"
IDENTITY = "torch.nn.modules.linear.Identity"


def add_layers(folder: Path, *layers: tuple[int, int, str]) -> list[tuple[Any, Any, str]]:
    """Put Dense modules between pooling and normalization; return weights, biases and activations."""
    random = np.random.default_rng(5)
    written = []
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    for number, (width, out, act) in enumerate(layers):
        name = f"{number + 2}_Dense"
        weight = random.standard_normal((out, width)).astype(np.float32)
        bias = random.standard_normal(out).astype(np.float32)
        settings = {
            "in_features": width,
            "out_features": out,
            "bias": True,
            "activation_function": act,
        }
        write_json(folder / name / "config.json", settings)
        save_file(
            {"linear.weight": weight, "linear.bias": bias}, folder / name / "model.safetensors"
        )
        written.append((weight, bias, act))
        kinds.append((name, "Dense"))
    kinds.append((f"{len(layers) + 2}_Normalize", "Normalize"))
    modules = [
        {"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds
    ]
    write_json(folder / "modules.json", modules)
    return written


async def test_vectors_go_through_them(tmp_path: Path) -> None:
    """Layers apply in their order, each with its activation; dimensions are the last one's, and can be cut."""
    texts = ["alpha beta", "the red one"]
    plain = write_tiny_bert(tmp_path / "plain")
    async with opened(plain) as server:
        pooled = np.array(await server.post("/embed", {"inputs": texts, "normalize": False}))
    folder = write_tiny_bert(tmp_path / "model")
    layers = add_layers(folder, (32, 48, TANH), (48, 20, IDENTITY))
    expected = pooled
    for weight, bias, act in layers:
        expected = expected @ weight.T + bias
        expected = np.tanh(expected) if act == TANH else expected
    async with opened(folder) as server:
        raw = await server.post("/embed", {"inputs": texts, "normalize": False})
        unit = await server.post("/embed", {"inputs": texts, "dimensions": 8})
        listed = (await server.client.get("/v1/models")).json()["data"][0]
        codes = {"input": texts, "output_dtype": "int8"}
        quantized = await server.post("/v1/embeddings", codes)
    np.testing.assert_allclose(raw, expected, atol=1e-4)
    cut = expected[:, :8]
    np.testing.assert_allclose(unit, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-5)
    assert listed["dimensions"]["native"] == 20
    assert len(quantized["data"][0]["embedding"]) == 20


def test_other_layers_make_another_space(tmp_path: Path) -> None:
    """The layers' weights and settings are part of the fingerprint."""
    hashes = HashCache(tmp_path / "hashes.json")
    spaces = set()
    for name, layers in (
        ("none", ()),
        ("one", ((32, 20, TANH),)),
        ("other", ((32, 20, IDENTITY),)),
        ("two", ((32, 20, TANH), (20, 8, TANH))),
    ):
        folder = write_tiny_bert(tmp_path / name)
        if layers:
            add_layers(folder, *layers)
        spaces.add(space_fingerprint(read_model_folder(folder), hashes))
    assert len(spaces) == 4


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"in_features": "many"}, "in_features"),
        ({"activation_function": "my.Own"}, "activation_function"),
        ({"use_residual": True}, r"residual\.weight"),
        ({"use_residual": "yes"}, "use_residual must be true or false"),
        ({"out_features": 7}, "shape"),
        ({"in_features": 9, "out_features": 20}, "shape"),
    ],
)
async def test_what_does_not_fit_is_named(tmp_path: Path, change: Any, named: str) -> None:
    """The model is refused before anything is served."""
    folder = write_tiny_bert(tmp_path / "model")
    add_layers(folder, (32, 20, TANH))
    right = {"in_features": 32, "out_features": 20, "activation_function": TANH}
    write_json(folder / "2_Dense/config.json", {**right, **change})
    with pytest.raises(FormatError, match=named):
        async with opened(folder):
            pass


async def test_layers_without_weights_are_refused(tmp_path: Path) -> None:
    """The error names the files that would do; one of the wrong kind by a known name is damaged."""
    folder = write_tiny_bert(tmp_path / "model")
    add_layers(folder, (32, 20, TANH))
    weights = folder / "2_Dense/model.safetensors"
    weights.rename(folder / "2_Dense/pytorch_model.bin")
    with pytest.raises(FormatError, match="not an archive as torch writes it"):
        read_model_folder(folder).head.write(tmp_path)
    (folder / "2_Dense/pytorch_model.bin").unlink()
    with pytest.raises(FormatError, match=r"no model\.safetensors and no pytorch_model\.bin"):
        read_model_folder(folder)


async def test_modules_that_do_not_fit_each_other(tmp_path: Path) -> None:
    """The second layer must take what the first gives."""
    folder = write_tiny_bert(tmp_path / "model")
    add_layers(folder, (32, 20, TANH), (21, 8, TANH))
    with pytest.raises(FormatError, match="do not fit"):
        async with opened(folder):
            pass
