"""Each architecture against transformers' own states: packed, alone, together, at lengths 1, 2, 17 and the longest."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from app.engine.backend import BackendOptions
from app.engine.onnx_backend import OnnxBackend
from app.engine.types import Layout
from app.errors import FormatError
from app.export.architectures import ARCHITECTURES, Recipe, export_graph
from app.export.attention import AttentionRoutes
from tests.families.harness import all_families, largest_error, load
from tests.families.table import table

TOLERANCE = 1e-4  # in truth about 1e-6
each = pytest.mark.parametrize("name", all_families())


def test_every_architecture_has_its_files() -> None:
    """A new one cannot be forgotten."""
    assert set(all_families()) == set(ARCHITECTURES)


@each
def test_packed_states_are_transformers(tmp_path: Path, name: str) -> None:
    """In mixed batches, alone, and in batches of one length, which take other ways through attention."""
    family = load(name)
    assert largest_error(family, family.open(tmp_path)) < TOLERANCE


@each
def test_other_ways_through_attention(tmp_path: Path, name: str) -> None:
    """Those of 8-bit graphs, those of other runtimes, and long rows that take the contrib kernel."""
    family = load(name)
    family.write(tmp_path)
    for routes in AttentionRoutes:
        path = tmp_path / routes / "model.onnx"
        path.parent.mkdir()
        export_graph(tmp_path, family.config, path, Recipe(routes=routes))
        for tokens in (0, 128):
            options = BackendOptions(plain_attention_tokens=tokens)
            assert largest_error(family, OnnxBackend(path, Layout.PACKED, options)) < TOLERANCE


@each
def test_padded_graphs_give_the_same(tmp_path: Path, name: str) -> None:
    """What `nestvec export --padded` writes."""
    family = load(name)
    assert largest_error(family, family.open(tmp_path, padded=True)) < TOLERANCE


@each
def test_checkpoints_with_a_head(tmp_path: Path, name: str) -> None:
    """They keep the encoder under the family's name."""
    family = load(name)
    prefix = getattr(ARCHITECTURES[name], "prefix", "")
    assert largest_error(family, family.open(tmp_path, prefix=prefix)) < TOLERANCE


@each
def test_a_missing_or_misshapen_tensor_is_named(tmp_path: Path, name: str) -> None:
    """Whichever it is."""
    family = load(name)
    for number, tensor in enumerate(sorted(family.tensors)):
        missing = dataclasses.replace(family, tensors=copy.copy(family.tensors))
        del missing.tensors[tensor]
        with pytest.raises(FormatError, match="tensor"):
            missing.open(tmp_path / f"m{number}")
        wrong = dataclasses.replace(family, tensors=copy.copy(family.tensors))
        wrong.tensors[tensor] = np.zeros((3, 3, 3), np.float32)
        with pytest.raises(FormatError, match=f"'{tensor}' has shape"):
            wrong.open(tmp_path / f"w{number}")


@each
def test_the_longest_input_is_the_position_tables(name: str) -> None:
    """Rows before the first position are not counted."""
    family = load(name)
    longest = max(len(ids) for ids in family.inputs)
    assert ARCHITECTURES[name].dimensions(family.config).max_positions == longest


def test_the_page_is_up_to_date() -> None:
    """`make families-table` writes docs/architectures.md; figures may differ in the last digit by machine."""
    page = (Path(__file__).parent.parent.parent / "docs/architectures.md").read_text()
    named = {line.split("|")[1].strip(" `") for line in page.splitlines() if line.startswith("| `")}
    assert named == {line.split("|")[1].strip(" `") for line in table().splitlines()[2:]}
