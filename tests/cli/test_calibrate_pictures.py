"""`nestvec calibrate --pictures`: ranges of 8-bit vectors that hold texts and pictures."""

import re
from pathlib import Path

import numpy as np
import pytest
from nestvec.assembly.package import prepare_model
from nestvec.config.loading import load_settings
from nestvec.engine.vectors.quantization import Quantizer

from tests.cli.test_commands import invoke
from tests.engine.pictures.forms import FORMS
from tests.model_store.two_towers.towers import HERE, write_model
from tests.support.tiny import write_tiny_bert


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP, and what is exported of it."""
    folder = tmp_path_factory.mktemp("calibrate")
    write_model(folder / "clip", "clip")
    return folder


@pytest.fixture
def clip(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny CLIP, with its cache."""
    monkeypatch.setenv("NESTVEC_CACHE_DIR", str(home / "cache"))
    return home / "clip"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of sixteen pictures, one of them below it, and a text that is none."""
    folder = tmp_path / "photos"
    (folder / "old").mkdir(parents=True)
    for name, make in FORMS.items():
        (folder / f"{name}.png").write_bytes(make())
    (folder / "old/again.PNG").write_bytes(FORMS["png"]())
    (folder / "notes.txt").write_text("alpha")
    return folder


def quantizer_of(model: Path) -> Quantizer:
    """Return the ranges that a model has now."""
    return prepare_model(load_settings({"model": str(model)})).quantizer


def test_ranges_hold_texts_and_pictures(clip: Path, photos: Path) -> None:
    """Ranges reach as far as any value of either kind, and what was clipped of each is told; texts alone go back."""
    first = quantizer_of(clip)
    assert first.vectors is not None
    pictures = np.load(HERE / "clip_pictures.npy")
    done = invoke("calibrate", "--pictures", str(photos), "--model", str(clip))
    assert done.exit_code == 0, f"{done.output} {done.exception}"
    told = re.search(r"^16 pictures; (\d+\.\d+)% of their values", done.output, re.MULTILINE)
    assert told is not None
    # One more than those that transformers computed.
    assert float(told[1]) == pytest.approx(100 * first.clipped_share(pictures), abs=1)
    both = quantizer_of(clip)
    assert both.source == "texts+pictures"
    for size in (24, 8):
        cut = np.concatenate([first.vectors, pictures])[:, :size]
        reach = np.abs(cut / np.linalg.norm(cut, axis=1, keepdims=True)).max()
        assert both.ranges(size).high.max() == pytest.approx(reach, rel=0.02)
    assert invoke("calibrate", "--model", str(clip)).exit_code == 0
    assert quantizer_of(clip).id == first.id


def test_what_is_no_set_of_pictures(clip: Path, photos: Path, tmp_path: Path) -> None:
    """Too few, a broken one, and a model of texts are refused, with the file or the model; ranges stay."""
    bert = write_tiny_bert(tmp_path / "bert")
    few = tmp_path / "few"
    few.mkdir()
    (few / "one.png").write_bytes(FORMS["png"]())
    (photos / "broken.png").write_bytes(FORMS["png"]()[:60])
    for model, folder, reason in (
        (clip, few, "at least 16"),
        (clip, photos, "broken.png: this picture"),
        (bert, photos, "bert takes texts only"),
    ):
        before = quantizer_of(model).id
        done = invoke("calibrate", "--pictures", str(folder), "--model", str(model))
        assert done.exit_code != 0
        assert reason in f"{done.output} {done.exception}"
        assert quantizer_of(model).id == before
