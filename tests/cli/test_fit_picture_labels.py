"""`nestvec model fit --concepts` and `--calibrate` with folders of pictures, a folder for each label."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from nestvec.cli import group
from nestvec.engine.vectors.maps import AffineMap
from nestvec.model_store.artefacts.maps import read_map

from tests.engine.pictures.forms import FORMS, colours, encoded
from tests.model_store.two_towers.towers import HERE, write_model

LABELS = ("png", "jpeg", "webp")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP, a picture for each of three labels, others to calibrate on, and labels by words."""
    folder = tmp_path_factory.mktemp("labels")
    write_model(folder / "clip", "clip")
    for number, label in enumerate(LABELS):
        for name in ("examples", "labelled"):
            (folder / name / label).mkdir(parents=True)
        (folder / "examples" / label / f"{label}.png").write_bytes(FORMS[label]())
        for seed in range(10):
            picture = encoded(colours(20 + 5 * number, 12 + seed, seed), "PNG")
            (folder / "labelled" / label / f"{seed}.png").write_bytes(picture)
    # To the tiny model words that it does not know are one.
    (folder / "words.tsv").write_text("png\tred\njpeg\tgreen and a\nwebp\tblue two\n")
    (folder / "names.tsv").write_text("red\ngreen\nblue\n")
    return folder


def run(home: Path, *arguments: str) -> Result:
    """Fit a map into a file of its own."""
    base = ["model", "fit", str(home / "clip"), "--cache-dir", str(home / "cache")]
    fixed = ["--offline", "--log-level", "error", "--out", str(home / "map.npz")]
    return CliRunner().invoke(group, [*base, *fixed, *arguments])


def fit(home: Path, *arguments: str) -> AffineMap:
    """Fit a map, and read it back."""
    done = run(home, *arguments)
    assert done.exit_code == 0, f"{done.output} {done.exception}"
    return read_map(home / "map.npz")


def test_anchors_of_pictures(home: Path) -> None:
    """Each label's is the mean of its pictures' unit vectors, which are transformers'."""
    fitted = fit(home, "--concepts", str(home / "examples"))
    assert fitted.labels == tuple(sorted(LABELS))
    rows = dict(zip(FORMS, np.load(HERE / "clip_pictures.npy"), strict=True))
    expected = np.stack([rows[label] for label in fitted.labels], axis=1)
    np.testing.assert_allclose(fitted.weight, expected, atol=1e-5)
    assert (fitted.has_picture_anchors, fitted.template) == (True, "")
    assert fitted.label_calibration is None
    again = fit(home, "--concepts", str(home / "names.tsv"), "--template", "a {}")
    assert (again.has_picture_anchors, again.template) == (False, "a {}")


@pytest.mark.parametrize("concepts", ["examples", "words.tsv"])
def test_pictures_teach_probabilities(home: Path, concepts: str) -> None:
    """Labels by pictures or by words are calibrated on pictures, and the map says so when it is read back."""
    fitted = fit(home, "--concepts", str(home / concepts), "--calibrate", str(home / "labelled"))
    learned = fitted.label_calibration
    assert learned is not None
    assert (learned.is_of_pictures, fitted.has_picture_anchors) == (True, concepts == "examples")
    assert (learned.count, fitted.figures["labelled_texts"]) == (15, 15)
    assert learned.temperature is not None
    assert learned.conformal_threshold(0.1) <= 1


def test_wrong_folders_are_refused(home: Path, tmp_path: Path) -> None:
    """The folder or the file is named: of no label, without pictures, of one label, the anchors' own, broken ones."""
    examples = str(home / "examples")
    empty, broken, other = tmp_path / "empty", tmp_path / "broken", tmp_path / "other"
    for label in ("a", "b"):
        (broken / label).mkdir(parents=True)
        (broken / label / "x.png").write_bytes(FORMS["png"]()[:60])
    (empty / "a").mkdir(parents=True)
    (empty / "b").mkdir(parents=True)
    (other / "sofa").mkdir(parents=True)
    (other / "sofa/x.png").write_bytes(FORMS["png"]())
    for arguments, reason in (
        (("--concepts", str(home / "examples/png")), "two labels"),
        (("--concepts", str(empty)), "a: "),
        (("--concepts", str(broken)), "x.png: this picture"),
        (("--concepts", examples, "--template", "a {}"), "--template"),
        (("--concepts", examples, "--calibrate", str(other)), "sofa: there is no such label"),
        (("--concepts", examples, "--calibrate", examples), "pictures of anchors"),
    ):
        done = run(home, *arguments)
        assert done.exit_code != 0
        assert reason in f"{done.output} {done.exception}", arguments
