"""An exported BERT against an independent float64 forward pass, and checkpoints that must be read or refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import Layout
from nestvec.errors import FormatError
from nestvec.export.architectures import export_graph
from nestvec.export.families.bert import BERT
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.support.fakes import item
from tests.support.reference import ReferenceBert
from tests.support.tiny import CONFIG, bert_weights

LENGTHS = (1, 2, 17, CONFIG["max_position_embeddings"])
Tensors = dict[str, NDArray[np.float32]]


def export(folder: Path, weights: Tensors, config: dict[str, Any] | None = None) -> OnnxBackend:
    """Write weights, export them and open the graph."""
    save_file(weights, folder / "model.safetensors")
    export_graph(folder, config or CONFIG, folder / "model.onnx")
    return OnnxBackend(folder / "model.onnx", Layout.PACKED, BackendOptions())


def random_ids(length: int, seed: int) -> list[int]:
    """Make ids within the tiny vocabulary."""
    ids: list[int] = np.random.default_rng(seed).integers(0, CONFIG["vocab_size"], length).tolist()
    return ids


@pytest.mark.parametrize("seed", [1, 2])
def test_mixed_batches_match_the_reference(tmp_path: Path, seed: int) -> None:
    """Lengths 1, 2, 17 and the maximum, packed together, match to 1e-4 (measured: about 1e-6)."""
    weights = bert_weights(CONFIG, seed)
    backend = export(tmp_path, weights)
    reference = ReferenceBert(CONFIG, weights)
    inputs = [random_ids(length, seed * 100 + length) for length in LENGTHS * 2]
    states = backend.run(collate([item(*ids) for ids in inputs], Layout.PACKED)).hidden
    assert states is not None
    expected = np.concatenate([reference.hidden(ids) for ids in inputs])
    np.testing.assert_allclose(states, expected, atol=1e-4)


@pytest.mark.parametrize("prefix", ["bert.", "model.", "encoder."])
def test_checkpoints_with_a_prefix_are_read(tmp_path: Path, prefix: str) -> None:
    """Checkpoints that were saved with a head, which keep the encoder under a prefix, give the same states."""
    weights = bert_weights(CONFIG)
    backend = export(tmp_path, {prefix + name: tensor for name, tensor in weights.items()})
    ids = random_ids(5, 1)
    states = backend.run(collate([item(*ids)], Layout.PACKED)).hidden
    np.testing.assert_allclose(states, ReferenceBert(CONFIG, weights).hidden(ids), atol=1e-4)  # type: ignore[arg-type] # None would fail


def test_old_names_of_layer_norm_are_read(tmp_path: Path) -> None:
    """Checkpoints converted from TensorFlow, which say gamma and beta, give the same states."""
    weights = bert_weights(CONFIG)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): t
        for name, t in weights.items()
    }
    backend = export(tmp_path, old)
    ids = random_ids(5, 1)
    states = backend.run(collate([item(*ids)], Layout.PACKED)).hidden
    np.testing.assert_allclose(states, ReferenceBert(CONFIG, weights).hidden(ids), atol=1e-4)  # type: ignore[arg-type] # None would fail


def test_sharded_weights_are_read(tmp_path: Path) -> None:
    """Tensors are found in the shards that an index file names."""
    weights = bert_weights(CONFIG)
    names = sorted(weights)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, members in halves.items():
        save_file({n: weights[n] for n in members}, tmp_path / file)
    index = {"weight_map": {n: file for file, members in halves.items() for n in members}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    export_graph(tmp_path, CONFIG, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").is_file()


def test_half_precision_weights_are_widened(tmp_path: Path) -> None:
    """Bfloat16 and float16 checkpoints are computed in float32."""
    import ml_dtypes

    weights = bert_weights(CONFIG)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        narrow = {name: tensor.astype(dtype) for name, tensor in weights.items()}
        folder = tmp_path / np.dtype(dtype).name
        folder.mkdir()
        backend = export(folder, narrow)
        widened = {name: tensor.astype(np.float32) for name, tensor in narrow.items()}
        ids = random_ids(7, 4)
        states = backend.run(collate([item(*ids)], Layout.PACKED)).hidden
        np.testing.assert_allclose(states, ReferenceBert(CONFIG, widened).hidden(ids), atol=1e-4)  # type: ignore[arg-type] # None would fail


def without(name: str) -> Tensors:
    """Return all tensors but one."""
    return {n: t for n, t in bert_weights(CONFIG).items() if n != name}


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (without("embeddings.word_embeddings.weight"), "no tensor"),
        (
            without("encoder.layer.1.output.dense.bias"),
            "'encoder.layer.1.output.dense.bias' is missing",
        ),
        (
            {**bert_weights(CONFIG), "encoder.layer.0.output.dense.bias": np.zeros(31, np.float32)},
            "has shape",
        ),
        (
            {**bert_weights(CONFIG), "embeddings.LayerNorm.bias": np.full(32, np.nan, np.float32)},
            "NaN or infinity",
        ),
    ],
    ids=["no embeddings", "a tensor missing", "wrong shape", "NaN"],
)
def test_broken_weights_are_refused(tmp_path: Path, weights: Tensors, reason: str) -> None:
    """A missing, misshapen or non-finite tensor is refused by name, before anything is served."""
    with pytest.raises(FormatError, match=reason):
        export(tmp_path, weights)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, b"\x10\x00\x00\x00\x00\x00\x00\x00{broken json}}}"]
)
def test_corrupt_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    """The error names the corrupt file."""
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(FormatError, match=r"model\.safetensors: corrupt"):
        export_graph(tmp_path, CONFIG, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"hidden_size": None}, "'hidden_size' is missing"),
        ({"hidden_size": "32"}, "'hidden_size' is missing or not a int"),
        ({"num_attention_heads": 5}, "heads divide"),
        ({"num_hidden_layers": 0}, "positive"),
        ({"layer_norm_eps": "x"}, "'layer_norm_eps'"),
    ],
)
def test_unsupported_configurations_are_refused(change: dict[str, Any], reason: str) -> None:
    """Each error names the field."""
    with pytest.raises(FormatError, match=reason):
        BERT.read({**CONFIG, **change})


def test_unknown_activations_are_refused(tmp_path: Path) -> None:
    """The error lists the activations that are supported."""
    with pytest.raises(FormatError, match=r"hidden_act 'laplace' is not supported; known: gelu"):
        export(tmp_path, bert_weights(CONFIG), {**CONFIG, "hidden_act": "laplace"})


@pytest.mark.parametrize(
    "index",
    [
        "{",
        '{"weight_map": {"a": "../a.safetensors"}}',
        '{"weight_map": {"a": "gone.safetensors"}}',
        "{}",
    ],
)
def test_a_bad_index_of_shards_is_refused(tmp_path: Path, index: str) -> None:
    """An index that is broken, or names a missing shard or one outside the folder, is refused."""
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(FormatError, match=r"model\.safetensors\.index\.json"):
        export_graph(tmp_path, CONFIG, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "lengths",
    [(3, 3, 3), (1,), (3, 9), (170, 170), (170, 5, 161)],
    ids=["equal short", "single", "unequal short", "equal long", "unequal long"],
)
def test_every_branch_of_attention_matches_the_reference(
    tmp_path: Path, lengths: tuple[int, ...]
) -> None:
    """Rows of one length, which need no mask, and others match, above and below the switch to plain ops."""
    config = {**CONFIG, "max_position_embeddings": 200}
    weights = bert_weights(config)
    backend = export(tmp_path, weights, config)
    inputs = [random_ids(length, n) for n, length in enumerate(lengths)]
    states = backend.run(collate([item(*ids) for ids in inputs], Layout.PACKED)).hidden
    assert states is not None
    reference = ReferenceBert(config, weights)
    expected = np.concatenate([reference.hidden(ids) for ids in inputs])
    np.testing.assert_allclose(states, expected, atol=1e-5)
