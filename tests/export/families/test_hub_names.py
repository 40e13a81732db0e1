"""Checkpoints with the names of their authors' own code, as most are on the Hub, give the same states."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.errors import FormatError
from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.layers.rotary_frequencies import read_frequencies
from numpy.typing import NDArray

from tests.export.families.harness import Family, largest_error, load

TOLERANCE = 1e-4


def renamed(family: Family, names: tuple[tuple[str, str], ...]) -> dict[str, NDArray[np.float32]]:
    """Return the tensors under other names: each pair replaces a part of a name, in order."""
    tensors = {}
    for name, tensor in family.tensors.items():
        for part, replacement in names:
            name = name.replace(part, replacement)  # noqa: PLW2901
        tensors[name] = tensor
    return tensors


def fuse(tensors: dict[str, NDArray[np.float32]], layer: str, parts: list[str], whole: str) -> None:
    """Merge several layers' tensors into one, in each of two blocks named by `layer`."""
    for number in range(2):
        for kind in ("weight", "bias"):
            names = [f"{layer.format(number)}{part}.{kind}" for part in parts]
            if names[0] in tensors:
                fused = np.concatenate([tensors.pop(name) for name in names])
                tensors[f"{layer.format(number)}{whole}.{kind}"] = fused


def check(family: Family, folder: Path, config: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Compare the states of a checkpoint with other names with those that are expected."""
    original = dataclasses.replace(family, config=config, tensors=tensors)
    assert largest_error(original, original.open(folder)) < TOLERANCE


QKV = [f"self_attn.{part}_proj" for part in "qkv"]


def test_nomic_by_its_authors_names(tmp_path: Path) -> None:
    """A checkpoint with fused projections and other names of tensors and fields gives the same states."""
    family = load("nomic_bert")
    tensors = renamed(
        family,
        (
            ("embeddings.LayerNorm", "emb_ln"),
            ("layers.", "encoder.layers."),
            ("self_attn.o_proj", "attn.out_proj"),
            ("mlp.gate_proj", "mlp.fc12"),
            ("mlp.up_proj", "mlp.fc11"),
            ("mlp.down_proj", "mlp.fc2"),
            ("post_attention_layernorm", "norm1"),
            ("post_mlp_layernorm", "norm2"),
        ),
    )
    fuse(tensors, "encoder.layers.{}.", QKV, "attn.Wqkv")
    config = {
        "model_type": "nomic_bert",
        "vocab_size": 128,
        "n_embd": 32,
        "n_inner": 48,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 40,
        "layer_norm_epsilon": 1e-5,
        "rotary_emb_base": 700,
        "activation_function": "swiglu",
        "prenorm": False,
    }
    check(family, tmp_path, config, tensors)
    for field, value in (
        ("prenorm", True),
        ("rotary_scaling_factor", 2.0),
        ("causal", True),
        # The error has the file's own name of the field.
        ("n_layer", None),
    ):
        with pytest.raises(FormatError, match=field):
            ARCHITECTURES["nomic_bert"].dimensions({**config, field: value})


def test_gte_by_its_authors_names(tmp_path: Path) -> None:
    """A checkpoint of `model_type` new, with both layers of the gated MLP in one, gives the same states."""
    family = load("gte")
    tensors = renamed(
        family,
        (
            ("layers.", "encoder.layer."),
            ("self_attn.o_proj", "attention.o_proj"),
            ("post_attention_layernorm", "attn_ln"),
            ("post_mlp_layernorm", "mlp_ln"),
        ),
    )
    fuse(tensors, "encoder.layer.{}.", QKV, "attention.qkv_proj")
    fuse(tensors, "encoder.layer.{}.", ["mlp.up_proj", "mlp.gate_proj"], "mlp.up_gate_proj")
    config = {k: v for k, v in family.config.items() if k != "rope_parameters"}
    config |= {"model_type": "new", "rope_theta": 700.0, "position_embedding_type": "rope"}
    config |= {"pack_qkv": True, "layer_norm_type": "layer_norm", "logn_attention_scale": False}
    assert architecture_of(config) == "gte"
    check(family, tmp_path, config, tensors)
    for field, value in (("layer_norm_type", "rms_norm"), ("logn_attention_scale", True)):
        with pytest.raises(FormatError, match=field):
            ARCHITECTURES["gte"].dimensions({**config, field: value})


def test_jina_v3_by_its_authors_names(tmp_path: Path) -> None:
    """An XLM-RoBERTa whose configuration says that its positions are rotary gives the same states."""
    family = load("jina_embeddings_v3")
    tensors = renamed(
        family,
        (
            ("embeddings.LayerNorm", "emb_ln"),
            ("layers.", "encoder.layers."),
            ("self_attn.o_proj", "mixer.out_proj"),
            ("post_attention_layernorm", "norm1"),
            ("post_mlp_layernorm", "norm2"),
        ),
    )
    fuse(tensors, "encoder.layers.{}.", QKV, "mixer.Wqkv")
    config = {k: v for k, v in family.config.items() if k != "rope_parameters"}
    config |= {"model_type": "xlm-roberta", "position_embedding_type": "rotary"}
    config["rotary_emb_base"] = 700.0
    assert architecture_of(config) == "jina_embeddings_v3"
    prefixed = {f"roberta.{name}": tensor for name, tensor in tensors.items()}
    check(family, tmp_path / "plain", config, prefixed)
    # Layers with adapters keep their weights under another name.
    adapted = {
        name.replace(".Wqkv.weight", ".Wqkv.parametrizations.weight.original"): tensor
        for name, tensor in prefixed.items()
    }
    assert adapted.keys() != prefixed.keys()
    check(family, tmp_path / "adapted", config, adapted)


def test_ntk_is_as_in_gtes_own_code() -> None:
    """The base is multiplied by the factor, and frequencies divided by factor ** (2 / d), as in TEI."""
    scaling = {"type": "ntk", "factor": 8.0}
    frequencies = read_frequencies({"rope_theta": 20_000, "rope_scaling": scaling}, 64)
    exponents = np.arange(0, 64, 2) / 64
    expected = 160_000.0**-exponents / 8.0 ** (2 / 64)
    np.testing.assert_allclose(frequencies.values, expected, rtol=1e-5)
