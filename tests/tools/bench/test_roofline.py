"""The roofline: what a machine can do, and what a graph asks of it."""

from pathlib import Path

import numpy as np
import pytest
from nestvec.backends.open import open_backend
from nestvec.export.architectures import ExportOptions, export_graph
from nestvec.export.layers.arithmetic import ChannelRanges, StaticInt8
from nestvec.tools.bench import roofline
from nestvec.tools.bench.roofline import (
    flops_per_token,
    linear_weights,
    peak_gemm_flops_per_s,
    peak_rss_bytes,
)
from safetensors.numpy import save_file

from tests.support.tiny import CONFIG, bert_weights, write_json

# Four projections (32 x 32) and two of the feed-forward block (32 x 64), in each of two layers.
LINEAR = 2 * (4 * 32 * 32 + 2 * 32 * 64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of the tiny BERT."""
    save_file(bert_weights(CONFIG), tmp_path / "model.safetensors")
    write_json(tmp_path / "config.json", CONFIG)
    return tmp_path


def test_linear_weights_are_the_same_in_every_precision(folder: Path) -> None:
    """Linear weights are counted alike in every precision; embedding tables are looked up, not multiplied."""
    names = ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense")
    widths = (32, 32, 32, 64)
    ranges = {
        f"encoder.layer.{layer}.{name}": ChannelRanges(
            -np.ones(width, np.float32), np.ones(width, np.float32)
        )
        for layer in range(2)
        for name, width in zip(names, widths, strict=True)
    }
    for export_options in (
        ExportOptions(),
        ExportOptions(halves_weights=True),
        ExportOptions(StaticInt8(ranges)),
    ):
        export_graph(folder, CONFIG, folder / "model.onnx", export_options)
        assert linear_weights(folder / "model.onnx") == LINEAR


def test_attention_counts_by_length(folder: Path) -> None:
    """Attention costs two products of a token with every other one, in each layer."""
    export_graph(folder, CONFIG, folder / "model.onnx")
    graph = folder / "model.onnx"
    assert flops_per_token(graph, CONFIG, 32, 0.0) == 2 * LINEAR
    assert flops_per_token(graph, CONFIG, 32, 100.0) == 2 * LINEAR + 4 * 100 * 32 * 2


def test_the_limit_is_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate of real products on this machine is more than nothing, and less than any machine could do."""
    monkeypatch.setattr(roofline, "SIZES", (128,))
    monkeypatch.setattr(roofline, "ROUNDS", 2)
    assert 1e8 < peak_gemm_flops_per_s(open_backend, 1) < 1e13
    assert peak_rss_bytes() > 20 * 2**20
