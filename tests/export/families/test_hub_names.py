"""Checkpoints in the names of their authors' own code, as most are on the Hub: the same vectors as in transformers'."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.errors import FormatError
from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.layers.frequencies import read_frequencies
from numpy.typing import NDArray

from tests.export.families.harness import Family, largest_error, load

TOLERANCE = 1e-4


def renamed(family: Family, names: tuple[tuple[str, str], ...]) -> dict[str, NDArray[np.float32]]:
    """The tensors, each part of a name replaced in turn."""
    tensors = {}
    for name, tensor in family.tensors.items():
        for theirs, own in names:
            name = name.replace(theirs, own)  # noqa: PLW2901
        tensors[name] = tensor
    return tensors


def fuse(tensors: dict[str, NDArray[np.float32]], layer: str, parts: list[str], whole: str) -> None:
    """Several layers' tensors in one, below each block of `layer`."""
    for number in range(2):
        for kind in ("weight", "bias"):
            names = [f"{layer.format(number)}{part}.{kind}" for part in parts]
            if names[0] in tensors:
                found = np.concatenate([tensors.pop(name) for name in names])
                tensors[f"{layer.format(number)}{whole}.{kind}"] = found


def check(family: Family, folder: Path, config: dict[str, Any], tensors: dict[str, Any]) -> None:
    """The same states from other names."""
    original = dataclasses.replace(family, config=config, tensors=tensors)
    assert largest_error(original, original.open(folder)) < TOLERANCE


QKV = [f"self_attn.{part}_proj" for part in "qkv"]


def test_nomic(tmp_path: Path) -> None:
    """Fused projections, other names of tensors and fields."""
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
        ("n_layer", None),  # by the file's own name
    ):
        with pytest.raises(FormatError, match=field):
            ARCHITECTURES["nomic_bert"].dimensions({**config, field: value})


def test_gte(tmp_path: Path) -> None:
    """`new`: both branches of the MLP in one layer, the gate second."""
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


def test_jina_v3(tmp_path: Path) -> None:
    """An XLM-RoBERTa that says that its positions are rotary."""
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
    # With adapters beside them, layers keep their weights under another name.
    adapted = {
        name.replace(".Wqkv.weight", ".Wqkv.parametrizations.weight.original"): tensor
        for name, tensor in prefixed.items()
    }
    assert adapted.keys() != prefixed.keys()
    check(family, tmp_path / "adapted", config, adapted)


def test_ntk_is_as_in_gtes_own_code() -> None:
    """The base times the factor, and every frequency over factor ** (2 / d), as Text Embeddings Inference has it."""
    scaling = {"type": "ntk", "factor": 8.0}
    found = read_frequencies({"rope_theta": 20_000, "rope_scaling": scaling}, 64)
    steps = np.arange(0, 64, 2) / 64
    expected = 160_000.0**-steps / 8.0 ** (2 / 64)
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)
