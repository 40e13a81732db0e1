"""Merged models: weighted averages, and points on the arc between two."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.cli.model.merge import merge
from nestvec.errors import FormatError
from nestvec.model_store.sources.merging import _slerp, merge_models
from safetensors.numpy import load_file, save_file

from tests.model_store.heads.serving import opened
from tests.support.tiny import write_json, write_tiny_bert


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Write two models of different weights."""
    return [
        write_tiny_bert(tmp_path / "one", seed=1),
        write_tiny_bert(tmp_path / "two", seed=2),
    ]


def tensors(folder: Path) -> dict[str, Any]:
    """Read the tensors of a folder."""
    loaded: dict[str, Any] = load_file(folder / "model.safetensors")
    return loaded


@pytest.mark.parametrize("method", ["average", "slerp"])
def test_ends_are_the_parents(tmp_path: Path, pair: list[Path], method: str) -> None:
    """All the weight on one model gives that model, and a model merged with itself is itself."""
    for shares, parent in (([1, 0], 0), ([0, 1], 1)):
        out = tmp_path / f"{method}-{parent}"
        merge_models(pair, shares, out, method=method)
        merged, expected = tensors(out), tensors(pair[parent])
        for name, tensor in expected.items():
            np.testing.assert_allclose(merged[name], tensor, atol=1e-6)
    merge_models([pair[0], pair[0]], [3, 1], tmp_path / "self", method=method)
    merged, expected = tensors(tmp_path / "self"), tensors(pair[0])
    for name, tensor in expected.items():
        np.testing.assert_allclose(merged[name], tensor, atol=1e-6)


async def test_an_average_is_served(tmp_path: Path, pair: list[Path]) -> None:
    """The command scales weights to a sum of 1, and the vectors are in a space of their own."""
    out = tmp_path / "out"
    arguments = [*map(str, pair), "--weights", "3,1", "--out", str(out)]
    done = CliRunner().invoke(merge, arguments)
    assert done.exit_code == 0, done.output
    first, second, merged = tensors(pair[0]), tensors(pair[1]), tensors(out)
    for name, tensor in merged.items():
        np.testing.assert_allclose(tensor, 0.75 * first[name] + 0.25 * second[name], atol=1e-6)
    spaces = set()
    for folder in (*pair, out):
        async with opened(folder) as server:
            answer = await server.client.post("/embed", json={"inputs": "alpha"})
            spaces.add(answer.headers["x-embed-space"])
    assert len(spaces) == 3


@given(st.floats(0, 1), st.integers(0, 50))
@settings(max_examples=50, deadline=None)
def test_the_arc_keeps_its_radius(share: float, seed: int) -> None:
    """Between unit tensors every point has unit length, and lies as far along the arc as its share says."""
    random = np.random.default_rng(seed)
    start, end = (t / np.linalg.norm(t) for t in random.standard_normal((2, 6)).astype(np.float32))
    point = _slerp(start, end, share)
    assert np.linalg.norm(point) == pytest.approx(1, abs=1e-5)
    whole, part = (float(np.arccos(np.clip(start @ x, -1, 1))) for x in (end, point))
    assert part == pytest.approx(share * whole, abs=1e-2)


def test_what_makes_no_merge_is_refused(tmp_path: Path, pair: list[Path]) -> None:
    """Wrong numbers, architectures, tokenizers and tensors are refused."""
    out = tmp_path / "out"
    for folders, shares, method, named in (
        (pair[:1], [1], "average", "at least two"),
        (pair, [1], "average", "as many weights"),
        (pair, [1, -1], "average", "at least 0"),
        (pair, [0, 0], "average", "not all 0"),
        (pair, [float("nan"), 1], "average", "at least 0"),
        ([*pair, pair[0]], [1, 1, 1], "slerp", "two models"),
        (
            [pair[0], write_tiny_bert(tmp_path / "x", config={"num_hidden_layers": 1})],
            [1, 1],
            "average",
            "num_hidden_layers",
        ),
    ):
        with pytest.raises(FormatError, match=named):
            merge_models(folders, shares, out, method=method)
    save_file({**tensors(pair[1]), "more": np.ones(2)}, pair[1] / "model.safetensors")
    with pytest.raises(FormatError, match="'more' is in one model only"):
        merge_models(pair, [1, 1], out)
    write_json(pair[1] / "tokenizer.json", {})
    with pytest.raises(FormatError, match="another tokenizer"):
        merge_models(pair, [1, 1], out)
    assert not out.exists()


def test_weights_that_are_no_numbers(tmp_path: Path, pair: list[Path]) -> None:
    """The command says what is wrong."""
    done = CliRunner().invoke(
        merge, [*map(str, pair), "--weights", "a,b", "--out", str(tmp_path / "o")]
    )
    assert "weights: must be numbers" in str(done.exception.problems)  # type: ignore[union-attr]
