"""What families that share a builder with others have of their own: refused fields, shared blocks, names of tensors."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from nestvec.errors import FormatError
from nestvec.export.architectures import (
    ARCHITECTURES,
    RANGES,
    ExportOptions,
    export_reference_graphs,
)
from numpy.typing import NDArray

from tests.export.families.harness import Family, largest_error, load

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "heads that are rotated in part": (
        "phi3",
        {"partial_rotary_factor": 0.75},
        "partial_rotary_factor",
    ),
    "the same by transformers 5": (
        "phi3",
        {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.75}},
        "partial_rotary_factor",
    ),
    "long positions": (
        "phi3",
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0]}},
        "longrope",
    ),
    "groups of several blocks": ("albert", {"inner_group_num": 2}, "inner_group_num"),
    "another residual": (
        "bloom",
        {"apply_residual_connection_post_layernorm": True},
        "apply_residual",
    ),
    "two activations": ("gemma", {"hidden_activation": "gelu"}, "hidden_activation"),
    "biases of attention": ("gemma2", {"attention_bias": True}, "attention_bias"),
    "attention to both sides by another field": (
        "gemma2",
        {"use_bidirectional_attention": True},
        "use_bidirectional_attention",
    ),
    "more experts than there are": ("nomic_bert~experts", {"moe_top_k": 9}, "moe_top_k"),
    "shared experts": ("nomic_bert~experts", {"num_shared_experts": 1}, "num_shared_experts"),
    "gated experts": (
        "nomic_bert~experts",
        {"activation_function": "swiglu"},
        "activation_function",
    ),
    "shares that are made to add up to one": (
        "nomic_bert~experts",
        {"moe_normalize_expert_weights": True},
        "moe_normalize_expert_weights",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_graph_does_not_have_is_refused_by_field(case: str) -> None:
    """Each of them changes vectors."""
    name, changes, field = REFUSED[case]
    config = load(name).config
    with pytest.raises(FormatError, match=field):
        ARCHITECTURES[name.partition("~")[0]].dimensions({**config, **changes})


@pytest.mark.parametrize(
    ("name", "field", "other"),
    [
        ("gemma2", "attn_logit_softcapping", None),
        ("gemma2", "sliding_window", 40),
        ("ernie", "use_task_id", False),
        ("bloom", "layer_norm_epsilon", 1.0),
        ("m2m_100", "scale_embedding", False),
        ("nomic_bert~experts", "moe_top_k", 1),
    ],
)
def test_fields_that_change_states_are_read(
    tmp_path: Path, name: str, field: str, other: object
) -> None:
    """The tiny models show it: with another value the states are not transformers'."""
    family = load(name)
    changed = dataclasses.replace(family, config={**family.config, field: other})
    assert largest_error(changed, changed.open(tmp_path)) > 1e-3


def calibrated(family: Family, folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return least and greatest values of the channels of each layer's input, [2, C], over the longest input."""
    family.write(folder)
    path, calibration = folder / "model.onnx", folder / "calibration.onnx"
    parts = export_reference_graphs(folder, family.config, path, calibration, ExportOptions())
    session = onnxruntime.InferenceSession(calibration, providers=["CPUExecutionProvider"])
    ids = np.array(family.inputs[-1], np.int64)
    tokens = np.arange(len(ids), dtype=np.int64)
    feeds = {
        "ids": ids,
        "positions": tokens,
        "gather": tokens[None],
        "scatter": tokens,
        "lengths": np.array([len(ids)], np.int32),
        "has_equal_lengths": np.ones((), np.bool_),
    }
    wanted = {value.name for value in session.get_inputs()}
    (ranges,) = session.run([RANGES], {k: v for k, v in feeds.items() if k in wanted})
    return {name: ranges[:2, part] for name, part in parts.items()}


def test_blocks_that_share_weights_share_ranges(tmp_path: Path) -> None:
    """Steps of 8 bits must hold the inputs of all of them: with more blocks ranges only grow."""
    family = load("albert")
    config = {**family.config, "num_hidden_groups": 1}
    by_layers = [
        calibrated(
            dataclasses.replace(family, config={**config, "num_hidden_layers": layers}),
            tmp_path / str(layers),
        )
        for layers in (1, 3)
    ]
    one, three = by_layers
    assert set(one) == set(three)
    for name, (low, high) in one.items():
        assert (three[name][0] <= low).all()
        assert (three[name][1] >= high).all()
    first = next(iter(one))
    assert (three[first][0] < one[first][0]).any()


def test_an_encoder_alone_has_its_own_names(tmp_path: Path) -> None:
    """SONAR's checkpoints hold M2M-100's encoder without what stands around it; a whole model ties its embeddings."""
    family = load("m2m_100")
    own = {name.removeprefix("encoder."): tensor for name, tensor in family.tensors.items()}
    own["embed_tokens.weight"] = own.pop("shared.weight")
    alone = dataclasses.replace(family, tensors=own)
    assert largest_error(alone, alone.open(tmp_path / "alone")) < 1e-4
    named = {**family.tensors}
    named["encoder.embed_tokens.weight"] = named.pop("shared.weight")
    tied = dataclasses.replace(family, tensors=named)
    assert largest_error(tied, tied.open(tmp_path / "tied", prefix="model.")) < 1e-4
