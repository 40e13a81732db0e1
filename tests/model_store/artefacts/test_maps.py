"""Maps beside an artefact: kept whole, read back, and left out where they are not whole."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
from nestvec.engine.vectors.quantization import Quantiser
from nestvec.errors import FormatError
from nestvec.model_store.artefacts.maps import (
    check_map_name,
    keep_map,
    read_map,
    read_maps,
    write_map,
)

from tests.engine.test_vector_plan import random_map
from tests.support.fakes import HIDDEN
from tests.support.served import SPEC


def test_a_map_comes_back_as_it_was(tmp_path: Path) -> None:
    """Arrays, figures, ranges and the space it makes."""
    vectors = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    one = dataclasses.replace(
        random_map("short", width=4, unit=True),
        figures={"recall_at_10": 0.5},
        quantiser=Quantiser(vectors, "fitted"),
        target="t",
        target_model="other",
    )
    keep_map(tmp_path, one)
    keep_map(tmp_path, random_map("exit-1", layers=1))
    found = read_maps(tmp_path, SPEC.space)
    assert list(found) == ["exit-1", "short"]
    short = found["short"]
    np.testing.assert_array_equal(short.weight, one.weight)
    np.testing.assert_array_equal(short.bias, one.bias)
    assert (short.space, short.figures) == (one.space, one.figures)
    assert (short.kind, short.takes_unit, short.target_model) == (one.kind, True, "other")
    assert short.quantiser.id == one.quantiser.id
    assert [path.suffix for path in (tmp_path / "maps").iterdir()] == [".npz"] * 2


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "shape", "nan", "other space"])
def test_what_is_not_whole_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """With a warning; the model is served without it."""
    one = random_map("a")
    if damage == "shape":
        one = dataclasses.replace(one, bias=np.zeros(HIDDEN + 1, np.float32))
    elif damage == "nan":
        one = dataclasses.replace(one, bias=np.full(HIDDEN, np.nan, np.float32))
    elif damage == "other space":
        one = dataclasses.replace(one, source="another")
    path = keep_map(tmp_path, one)
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
    """Nothing that leads elsewhere."""
    with pytest.raises(FormatError, match="map name"):
        check_map_name(name)


def test_a_map_without_ranges(tmp_path: Path) -> None:
    """8-bit vectors then go by the formula."""
    write_map(tmp_path / "a.npz", random_map("a"))
    assert read_map(tmp_path / "a.npz").quantiser.id == Quantiser().id
