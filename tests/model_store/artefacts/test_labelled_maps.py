"""Maps with labels in their files: kept whole, and left out where labels and arrays do not fit."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.vectors.maps import AffineMap
from nestvec.errors import FormatError
from nestvec.model_store.artefacts.maps import read_map, write_map

from tests.engine.front.test_vector_plan import random_map
from tests.support.labelled_maps import LABELS, concept_map, label_calibration


@pytest.mark.parametrize("temperature", [0.25, None])
def test_labels_and_what_was_learned_come_back(tmp_path: Path, temperature: float | None) -> None:
    """Names, template, temperature, scores, sigmoids and thresholds are kept to the last bit, and so is the space."""
    learned = label_calibration(temperature=temperature)
    written = concept_map(calibration=learned)
    write_map(tmp_path / "a.npz", written)
    read = read_map(tmp_path / "a.npz")
    assert (read.labels, read.template, read.space) == (LABELS, "a text about {}", written.space)
    assert read.label_calibration is not None
    for name in ("temperature", "count"):
        assert getattr(read.label_calibration, name) == getattr(learned, name)
    for name in ("scores", "sigmoids", "thresholds"):
        np.testing.assert_array_equal(getattr(read.label_calibration, name), getattr(learned, name))
    write_map(tmp_path / "b.npz", concept_map())
    assert read_map(tmp_path / "b.npz").label_calibration is None


def test_labels_are_part_of_the_space_and_calibration_is_none() -> None:
    """Another name of a value is another space; better probabilities of the same values are the same one."""
    plain = concept_map()
    assert dataclasses.replace(plain, labels=("sports", "law", "Kunst é")).space != plain.space
    assert concept_map(calibration=label_calibration()).space == plain.space


def test_maps_without_labels_keep_their_spaces(tmp_path: Path) -> None:
    """Fingerprints and files of other maps are what they were before maps had labels."""
    turned = random_map("turned")
    assert turned.space == "07ec0f9bcece00ec0040748067b31a69"
    write_map(tmp_path / "a.npz", turned)
    with np.load(tmp_path / "a.npz") as stored:
        assert set(stored) == {"weight", "bias", "calibration", "meta"}
        assert set(json.loads(str(stored["meta"]))) == {
            *("name", "kind", "source", "target", "target_model", "layers", "takes_unit"),
            "figures",
        }


Damage = Callable[[dict[str, Any], dict[str, Any]], None]
DAMAGES: dict[str, Damage] = {
    "a label fewer": lambda meta, _: meta.update(labels=["a", "b"]),
    "a label twice": lambda meta, _: meta.update(labels=["a", "b", "a"]),
    "an empty label": lambda meta, _: meta.update(labels=["a", "b", ""]),
    "a label of two lines": lambda meta, _: meta.update(labels=["a", "b", "c\nd"]),
    "no labels": lambda meta, _: meta.pop("labels"),
    "a word for labels": lambda meta, _: meta.update(labels=3),
    "half a character": lambda meta, _: meta.update(labels=["a", "b", "\ud800"]),
    "labels of another kind": lambda meta, _: meta.update(kind="svd"),
    "a temperature of 0": lambda meta, _: meta["label_calibration"].update(temperature=0),
    "a temperature of NaN": lambda meta, _: meta["label_calibration"].update(temperature="nan"),
    "no count": lambda meta, _: meta["label_calibration"].pop("count"),
    "another count": lambda meta, _: meta["label_calibration"].update(count=61),
    "a count beyond all": lambda meta, _: meta["label_calibration"].update(count=float("inf")),
    "scores of no temperature": lambda meta, _: meta["label_calibration"].update(temperature=None),
    "falling scores": lambda _, arrays: arrays.update(label_scores=arrays["label_scores"][::-1]),
    "NaN scores": lambda _, arrays: arrays.update(label_scores=np.full(60, np.nan)),
    "a sigmoid fewer": lambda _, arrays: arrays.update(label_sigmoids=np.zeros((2, 2))),
    "a threshold fewer": lambda _, arrays: arrays.update(label_thresholds=np.zeros(2)),
    "no scores": lambda _, arrays: arrays.pop("label_scores"),
}


def rewrite(affine_map: AffineMap, path: Path, damage: Damage) -> None:
    """Write a map's file with damage to what it says or holds."""
    write_map(path, affine_map)
    with np.load(path) as stored:
        arrays: dict[str, Any] = dict(stored)
    meta = json.loads(str(arrays.pop("meta")))
    damage(meta, arrays)
    with path.open("wb") as file:
        np.savez(file, **arrays, meta=np.array(json.dumps(meta)))


@pytest.mark.parametrize("name", DAMAGES)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    """No map is served whose values would be called by another's name, or whose promise nothing stands behind."""
    path = tmp_path / "a.npz"
    rewrite(concept_map(calibration=label_calibration()), path, lambda _, __: None)
    assert read_map(path).labels == LABELS
    rewrite(concept_map(calibration=label_calibration()), path, DAMAGES[name])
    with pytest.raises(FormatError, match="not a map"):
        read_map(path)
