"""The scale of cosines that models of two towers learned: the logits that it makes are transformers'."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.errors import FormatError
from nestvec.model_store.package import load_package
from nestvec.model_store.two_towers.label_scale import read_label_scale
from safetensors.numpy import save_file

from tests.model_store.test_package import options
from tests.model_store.two_towers.towers import CONFIGS, HERE, tensors, write_model

# What transformers' configuration of CLIP begins training with, which the expected logits were computed with.
FIRST_OF_CLIP = np.array(2.6592, np.float32)


def write_with(folder: Path, kind: str, **more: Any) -> Path:
    """Write a kind's tiny model with other tensors beside its own."""
    write_model(folder, kind)
    own = {name: np.asarray(value, np.float32) for name, value in more.items()}
    save_file({**tensors(kind), **own}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_logits_equal_those_of_transformers(tmp_path: Path, kind: str) -> None:
    """Cosines of pictures with texts, times the factor and with the offset, are `logits_per_image`."""
    more = {"logit_scale": FIRST_OF_CLIP} if kind == "clip" else {}
    scale = read_label_scale(write_with(tmp_path, kind, **more))
    assert scale is not None
    assert (scale.offset is None) == (kind == "clip")
    pictures, texts = (np.load(HERE / f"{kind}_{name}.npy") for name in ("pictures", "texts"))
    logits = pictures @ texts.T * scale.factor + (scale.offset or 0)
    expected = np.load(HERE / f"{kind}_logits.npy")
    assert np.abs(logits - expected).max() < 1e-4
    likely = 1 / (1 + np.exp(-expected.astype(np.float64)))
    if kind == "siglip":
        assert np.abs(scale.independent(pictures @ texts.T) - likely).max() < 1e-5
    assert scale.temperature == pytest.approx(1 / scale.factor)


def test_serving_knows_it(tmp_path: Path) -> None:
    """It is part of what is known of a model; of weights without one nothing is guessed."""
    assert read_label_scale(write_model(tmp_path / "plain", "clip")) is None
    folder = write_with(tmp_path / "scaled", "clip", logit_scale=np.log(50))
    scale = load_package(str(folder), options(folder), OnnxBackend).spec.label_scale
    assert scale is not None
    assert scale.factor == pytest.approx(50, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("logit_scale", value) for value in ([1.0, 2.0], np.nan, np.inf, -40.0, 40.0)),
        *(("logit_bias", value) for value in ([1.0, 2.0], np.nan, -np.inf, 1e30)),
    ],
)
def test_what_is_no_scale_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    """Several numbers, what is not finite and scales that nothing is trained to are refused by the tensor's name."""
    more = {"logit_scale": 3.0, name: value}
    with pytest.raises(FormatError, match=f"tensor '{name}'"):
        read_label_scale(write_with(tmp_path, "clip", **more))
