"""Maps beside an artefact: written whole, read back, and left out where they are not whole."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.errors import FormatError
from nestvec.model_store.artefacts.maps import (
    check_map_name,
    read_map,
    read_maps,
    store_map,
    write_map,
)

from tests.engine.front.test_vector_plan import random_map
from tests.support.fakes import HIDDEN
from tests.support.served import SPEC


def test_a_map_comes_back_as_it_was(tmp_path: Path) -> None:
    """Arrays, figures, ranges and the space that it makes are kept."""
    vectors = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    affine_map = dataclasses.replace(
        random_map("short", width=4, unit=True),
        figures={"recall_at_10": 0.5},
        quantizer=Quantizer(vectors, "fitted"),
        target="t",
        target_model="other",
    )
    store_map(tmp_path, affine_map)
    store_map(tmp_path, random_map("exit-1", layers=1))
    maps = read_maps(tmp_path, SPEC.space)
    assert list(maps) == ["exit-1", "short"]
    short = maps["short"]
    np.testing.assert_array_equal(short.weight, affine_map.weight)
    np.testing.assert_array_equal(short.bias, affine_map.bias)
    assert (short.space, short.figures) == (affine_map.space, affine_map.figures)
    assert (short.kind, short.takes_unit, short.target_model) == (affine_map.kind, True, "other")
    assert short.quantizer.id == affine_map.quantizer.id
    assert [path.suffix for path in (tmp_path / "maps").iterdir()] == [".npz"] * 2


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "shape", "nan", "other space"])
def test_what_is_not_whole_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """There is a warning, and the model is served without the map."""
    affine_map = random_map("a")
    if damage == "shape":
        affine_map = dataclasses.replace(affine_map, bias=np.zeros(HIDDEN + 1, np.float32))
    elif damage == "nan":
        affine_map = dataclasses.replace(affine_map, bias=np.full(HIDDEN, np.nan, np.float32))
    elif damage == "other space":
        affine_map = dataclasses.replace(affine_map, source="another")
    path = store_map(tmp_path, affine_map)
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "garbage":
        path.write_bytes(b"PK\x03\x04" + b"x" * 100)
    elif damage == "empty":
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert read_maps(tmp_path, SPEC.space) == {}
    assert "left out" in caplog.text


def test_no_pickles(tmp_path: Path) -> None:
    """An array of objects is refused, not loaded."""
    path = tmp_path / "a.npz"
    with path.open("wb") as file:
        np.savez(file, weight=np.array([{"a": 1}], object), bias=[0], calibration=[0], meta="{}")
    with pytest.raises(FormatError, match="not a map"):
        read_map(path)


@pytest.mark.parametrize("name", ["", "../a", "A", "a b", "a" * 65, ".a"])
def test_names_are_files(name: str) -> None:
    """A name that leads out of the folder is refused."""
    with pytest.raises(FormatError, match="map name"):
        check_map_name(name)


def test_a_map_without_ranges(tmp_path: Path) -> None:
    """8-bit vectors are then made by the formula."""
    write_map(tmp_path / "a.npz", random_map("a"))
    assert read_map(tmp_path / "a.npz").quantizer.id == Quantizer().id
