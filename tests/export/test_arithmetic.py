"""Each way to compute linear layers and attention, against an independent float64 forward pass."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import Layout
from nestvec.errors import FormatError
from nestvec.export.architectures import (
    ExportOptions,
    export_graph,
    export_padded_graph,
    export_reference_graphs,
)
from nestvec.export.layers import arithmetic
from nestvec.export.layers.arithmetic import ChannelRanges, PerRowInt8, StaticInt8
from nestvec.export.layers.attention import AttentionOps
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.support.fakes import item
from tests.support.reference import ReferenceBert
from tests.support.tiny import CONFIG, bert_weights

Vectors = NDArray[np.float32]
INNER = "encoder.layer.0.output.dense"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a tiny BERT's weights."""
    path = tmp_path_factory.mktemp("weights")
    save_file(bert_weights(CONFIG), path / "model.safetensors")
    return path


@pytest.fixture(scope="module")
def texts() -> list[list[int]]:
    """Make token ids of texts of many lengths, some of them equal."""
    random = np.random.default_rng(5)
    lengths = [1, 2, 17, 40, 17, 9, 33, 24, *random.integers(1, 41, 30).tolist()]
    return [random.integers(0, CONFIG["vocab_size"], n).tolist() for n in lengths]


@pytest.fixture(scope="module")
def expected(texts: list[list[int]]) -> list[NDArray[np.float64]]:
    """Compute the reference's states of each text, [n, H]."""
    reference = ReferenceBert(CONFIG, bert_weights(CONFIG))
    return [reference.hidden(ids) for ids in texts]


@pytest.fixture(scope="module")
def ranges(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChannelRanges]:
    """Calibrate on random texts other than those that are compared."""
    path = tmp_path_factory.mktemp("calibration") / "calibration.onnx"
    reference = path.parent / "model.onnx"
    channels = export_reference_graphs(folder, CONFIG, reference, path, ExportOptions())
    random = np.random.default_rng(6)
    batch = [item(*random.integers(0, CONFIG["vocab_size"], 20)) for _ in range(60)]
    backend = OnnxBackend(path, Layout.PACKED, BackendOptions())
    measured = backend.run(collate(batch, Layout.PACKED)).hidden
    assert measured is not None
    return {
        name: ChannelRanges(measured[0, part], measured[1, part]) for name, part in channels.items()
    }


def run(backend: OnnxBackend, texts: Sequence[Sequence[int]]) -> list[Vectors]:
    """Return the states of each text, run as one batch."""
    batch = collate([item(*ids) for ids in texts], backend.info.layout)
    hidden = backend.run(batch).hidden
    assert hidden is not None
    return np.split(hidden, batch.offsets[1:-1])


def cosines(states: Sequence[Vectors], expected: Sequence[NDArray[np.float64]]) -> list[float]:
    """Return the cosine between mean-pooled states of each text."""
    pairs = [(a.mean(0), b.mean(0)) for a, b in zip(states, expected, strict=True)]
    return [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs]


@pytest.mark.parametrize("ops", AttentionOps)
@pytest.mark.parametrize("plain_tokens", [0, 20, 1000])
def test_all_attention_ops_match_the_reference(
    tmp_path: Path,
    folder: Path,
    texts: list[list[int]],
    expected: list[NDArray[np.float64]],
    ops: AttentionOps,
    plain_tokens: int,
) -> None:
    """States are right with and without a mask, by contrib and by plain ops, wherever the switch between them lies."""
    export_graph(folder, CONFIG, tmp_path / "model.onnx", ExportOptions(attention=ops))
    options = BackendOptions(plain_attention_tokens=plain_tokens)
    backend = OnnxBackend(tmp_path / "model.onnx", Layout.PACKED, options)
    same_length = [ids for ids in texts if len(ids) == 17]
    batches = [texts, *([ids] for ids in texts[:6]), same_length]
    expected_batches = [
        expected,
        *([e] for e in expected[:6]),
        [e for e in expected if len(e) == 17],
    ]
    for batch, states in zip(batches, expected_batches, strict=True):
        np.testing.assert_allclose(
            np.concatenate(run(backend, batch)), np.concatenate(states), atol=1e-4
        )


def test_portable_graphs_are_standard_onnx(tmp_path: Path, folder: Path) -> None:
    """A portable graph has neither contrib ops nor branches, so other runtimes can read it."""
    options = ExportOptions(attention=AttentionOps.PORTABLE)
    export_graph(folder, CONFIG, tmp_path / "model.onnx", options)
    graph = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    assert {entry.domain for entry in graph.opset_import} == {""}
    assert "If" not in {node.op_type for node in graph.graph.node}


@pytest.fixture(scope="module", params=[StaticInt8, PerRowInt8])
def int8(
    request: pytest.FixtureRequest,
    folder: Path,
    ranges: dict[str, ChannelRanges],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Export a graph of each 8-bit kind."""
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    export_graph(
        folder, CONFIG, path, ExportOptions(request.param(ranges), AttentionOps.SAME_ROUNDING)
    )
    return path


def test_int8_stays_close(
    int8: Path, texts: list[list[int]], expected: list[NDArray[np.float64]]
) -> None:
    """8-bit vectors are close on texts that calibration has not seen; random weights are harder than trained ones."""
    backend = OnnxBackend(int8, Layout.PACKED, BackendOptions())
    similarities = cosines(run(backend, texts), expected)
    # On CPUs without VNNI some sums saturate, so the bounds leave room.
    assert np.mean(similarities) > 0.985
    assert min(similarities) > 0.95
    kinds = [node.op_type for node in onnx.load(int8, load_external_data=False).graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 12  # six linear layers in each of two blocks
    assert "Gemm" not in kinds


def test_int8_does_not_depend_on_batch_mates(int8: Path, texts: list[list[int]]) -> None:
    """No scale comes from another text of the batch, and both branches of attention round the same way."""
    backend = OnnxBackend(int8, Layout.PACKED, BackendOptions())
    together = run(backend, texts)
    alone = [run(backend, [ids])[0] for ids in texts]
    equal = [np.allclose(a, b, atol=1e-6) for a, b in zip(together, alone, strict=True)]
    assert np.mean(equal) >= 0.95


def test_inputs_that_hardly_go_below_zero_are_one_sided() -> None:
    """Inputs as after GELU or ReLU are recognized; symmetric ones are not."""
    width = np.ones(8, np.float32)
    assert ChannelRanges(-0.17 * width, 4 * width).is_one_sided
    assert ChannelRanges(0 * width, 4 * width).is_one_sided
    assert not ChannelRanges(-4 * width, 4 * width).is_one_sided


def test_a_layer_without_calibration_is_an_error(
    tmp_path: Path, folder: Path, ranges: dict[str, ChannelRanges]
) -> None:
    """The error names the layer."""
    missing = {name: channels for name, channels in ranges.items() if name != INNER}
    with pytest.raises(FormatError, match=INNER):
        export_graph(folder, CONFIG, tmp_path / "model.onnx", ExportOptions(StaticInt8(missing)))


def test_weights_are_u8_where_products_would_saturate(
    tmp_path: Path,
    folder: Path,
    texts: list[list[int]],
    expected: list[NDArray[np.float64]],
    ranges: dict[str, ChannelRanges],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same numbers around 128, which run rightly on any CPU: those of s8 lose a lot on x86 without VNNI."""
    found = []
    for saturates in (False, True):
        monkeypatch.setattr(arithmetic, "saturates_u8_s8", lambda saturates=saturates: saturates)
        path = tmp_path / str(saturates) / "model.onnx"
        path.parent.mkdir()
        export_graph(folder, CONFIG, path, ExportOptions(StaticInt8(ranges)))
        initializers = {each.name: each for each in onnx.load(path).graph.initializer}
        names = sorted(name for name in initializers if name.endswith(("weight_s8", "weight_u8")))
        found.append([onnx.numpy_helper.to_array(initializers[name]) for name in names])
    for signed, shifted in zip(*found, strict=True):
        assert (signed.dtype, shifted.dtype) == (np.int8, np.uint8)
        np.testing.assert_array_equal(signed, shifted.astype(np.int16) - 128)
    backend = OnnxBackend(tmp_path / "True" / "model.onnx", Layout.PACKED, BackendOptions())
    # A text of one token is the hardest.
    found_cosines = cosines(run(backend, texts), expected)
    assert min(found_cosines) > 0.97
    assert np.median(found_cosines) > 0.9995


def test_halved_weights_compute_in_float32(
    tmp_path: Path, folder: Path, texts: list[list[int]], expected: list[NDArray[np.float64]]
) -> None:
    """Halved weights take half the bytes on disk and give nearly the same vectors."""
    sizes = []
    for number, halves in enumerate((False, True)):
        path = tmp_path / str(number) / "model.onnx"
        path.parent.mkdir()
        export_graph(folder, CONFIG, path, ExportOptions(halves_weights=halves))
        sizes.append(sum(file.stat().st_size for file in path.parent.glob("*.bin")))
        backend = OnnxBackend(path, Layout.PACKED, BackendOptions())
        assert min(cosines(run(backend, texts), expected)) > 0.99999
    assert sizes[1] < 0.6 * sizes[0]


def test_a_padded_graph_matches_the_reference_and_gives_zeros_at_padding(
    tmp_path: Path, folder: Path, texts: list[list[int]], expected: list[NDArray[np.float64]]
) -> None:
    """A padded graph takes what other programs feed: input_ids, attention_mask, token_type_ids."""
    path = tmp_path / "model.onnx"
    export_padded_graph(folder, CONFIG, path)
    backend = OnnxBackend(path, Layout.PADDED, BackendOptions())
    np.testing.assert_allclose(
        np.concatenate(run(backend, texts)), np.concatenate(expected), atol=1e-4
    )
    batch = collate([item(*texts[0]), item(*texts[2])], Layout.PADDED)
    states = onnxruntime.InferenceSession(path).run(None, dict(batch.arrays))[0]
    assert states.shape == (2, 17, CONFIG["hidden_size"])
    assert not states[0, len(texts[0]) :].any()
