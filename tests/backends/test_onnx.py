"""The onnxruntime backend: provider choice, graphs it takes and refuses, and the same promises as the fake."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.backends.ort import choose_provider
from nestvec.engine.backend import BackendOptions
from nestvec.engine.core.collate import collate
from nestvec.engine.types import Item, Layout
from nestvec.errors import BackendError, FormatError, ProviderError
from nestvec.model_store.package import Package
from onnx import TensorProto, helper

from tests.support.fakes import item

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("asked", "available", "chosen"),
    [
        ("auto", [CPU], "cpu"),
        ("auto", [CUDA, CPU], "cuda"),
        ("auto", ["TensorrtExecutionProvider", CUDA, CPU], "cuda"),
        ("cpu", [CUDA, CPU], "cpu"),
        ("cuda", [CUDA, CPU], "cuda"),
    ],
)
def test_provider_choice(asked: str, available: list[str], chosen: str) -> None:
    """Auto takes CUDA where present; a named one is taken."""
    assert choose_provider(asked, available) == chosen


@pytest.mark.parametrize("asked", ["cuda", "tpu"])
def test_a_provider_that_is_missing_is_an_error(asked: str) -> None:
    """Never a silent fallback."""
    with pytest.raises(ProviderError, match=asked):
        choose_provider(asked, [CPU])


def test_cuda_on_a_host_without_it_stops_the_start(tiny_package: Package) -> None:
    """This machine's onnxruntime has no CUDA."""
    with pytest.raises(ProviderError, match="install nestvec"):
        OnnxBackend(tiny_package.graph, Layout.PACKED, BackendOptions(provider="cuda"))


@pytest.fixture
def backend(tiny_package: Package) -> OnnxBackend:
    """The tiny BERT."""
    return OnnxBackend(tiny_package.graph, tiny_package.layout, BackendOptions())


def test_packed_hidden_states_do_not_depend_on_neighbours(backend: OnnxBackend) -> None:
    """Contract with the fake: an item's states are its own, whatever else the batch holds."""
    random = np.random.default_rng(3)
    items = [item(*random.integers(5, 100, n)) for n in (1, 2, 17, 24, 3)]
    together = backend.run(collate(items, backend.layout)).hidden
    alone = [backend.run(collate([one], backend.layout)).hidden for one in items]
    assert together is not None
    np.testing.assert_allclose(
        together, np.concatenate([a for a in alone if a is not None]), atol=1e-5
    )
    assert together.shape[1] == backend.hidden_size
    assert together.dtype == np.float32


def test_runtime_failures_keep_their_text_to_themselves(backend: OnnxBackend) -> None:
    """Onnxruntime quotes values; our error does not."""
    with pytest.raises(BackendError, match=r"^onnxruntime failed on this batch$"):
        backend.run(collate([item(1_000_000)], backend.layout))


def test_cost_counts_tokens_and_attention(backend: OnnxBackend) -> None:
    """A packed batch costs its tokens plus a little for attention."""
    assert 100 < backend.cost(np.array([50, 50])) < 150


def write_padded(
    path: Path, *, output: str = "last_hidden_state", extra: str = "", rows: int = 4
) -> None:
    """A foreign graph: an embedding table over input_ids, and whatever else a test wants."""
    table = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    shape_in: list[str | int | None] = ["B", "S"]
    names = ["input_ids", "attention_mask", *([extra] if extra else [])]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, shape_in) for n in names]
    shape: list[str | int | None] = ["B", 3] if output == "sentence_embedding" else ["B", "S", 3]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["states"])]
    if output == "sentence_embedding":
        nodes.append(helper.make_node("ReduceMax", ["states", "axes"], [output], keepdims=0))
    else:
        nodes.append(helper.make_node("Identity", ["states"], [output]))
    graph = helper.make_graph(
        nodes,
        "foreign",
        inputs,
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        [
            onnx.numpy_helper.from_array(table, "table"),
            onnx.numpy_helper.from_array(np.array([1]), "axes"),
        ],
    )
    onnx.save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path
    )


def test_a_padded_graph_gives_packed_states(tmp_path: Path) -> None:
    """Padding is cut out, so that pooling never sees it."""
    write_padded(tmp_path / "model.onnx")
    backend = OnnxBackend(tmp_path / "model.onnx", Layout.PADDED, BackendOptions())
    raw = backend.run(collate([item(1, 2, 3), item(3)], Layout.PADDED))
    assert raw.hidden is not None
    assert raw.hidden.tolist() == [[3, 4, 5], [6, 7, 8], [9, 10, 11], [9, 10, 11]]
    assert backend.hidden_size == 3


def test_a_graph_that_pools_gives_vectors(tmp_path: Path) -> None:
    """Where there is a sentence_embedding and no token states, it is taken."""
    write_padded(tmp_path / "model.onnx", output="sentence_embedding")
    backend = OnnxBackend(tmp_path / "model.onnx", Layout.PADDED, BackendOptions())
    raw = backend.run(collate([item(1, 2), item(3, 1)], Layout.PADDED))
    assert raw.hidden is None
    assert raw.pooled is not None
    assert raw.pooled.tolist() == [[6, 7, 8], [9, 10, 11]]


@pytest.mark.parametrize(
    ("output", "extra", "reason"),
    [
        ("logits", "", "no output named"),
        ("last_hidden_state", "pixels", "nothing can feed: pixels"),
    ],
)
def test_graphs_that_we_cannot_serve_are_refused_at_start(
    tmp_path: Path, output: str, extra: str, reason: str
) -> None:
    """Not at the first request."""
    write_padded(tmp_path / "model.onnx", output=output, extra=extra)
    with pytest.raises(FormatError, match=reason):
        OnnxBackend(tmp_path / "model.onnx", Layout.PADDED, BackendOptions())


def test_a_corrupt_graph_is_refused(tmp_path: Path) -> None:
    """The path is named."""
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(FormatError, match=r"model\.onnx: onnxruntime cannot open"):
        OnnxBackend(tmp_path / "model.onnx", Layout.PACKED, BackendOptions())


def test_items_with_one_token_run(backend: OnnxBackend) -> None:
    """The smallest batch there is."""
    raw = backend.run(collate([Item(ids=np.array([7], np.int32))], backend.layout))
    assert raw.hidden is not None
    assert raw.hidden.shape == (1, backend.hidden_size)
