"""The ONNX Runtime backend: choice of the provider, graphs that it takes and refuses, and the promises of the fake."""

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from nestvec.backends.graph_io import KINDS_PROPERTY
from nestvec.backends.onnx import OnnxBackend, save_packed
from nestvec.backends.ort import choose_provider
from nestvec.engine.backend import LONG_TOKENS, BackendOptions
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import Item, Layout
from nestvec.errors import BackendError, FormatError, ProviderError
from nestvec.model_store.package import Package
from onnx import TensorProto, helper

from tests.support.fakes import item

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("requested", "available", "chosen"),
    [
        ("auto", [CPU], "cpu"),
        ("auto", [CUDA, CPU], "cuda"),
        ("auto", ["TensorrtExecutionProvider", CUDA, CPU], "cuda"),
        ("cpu", [CUDA, CPU], "cpu"),
        ("cuda", [CUDA, CPU], "cuda"),
    ],
)
def test_a_provider_is_chosen(requested: str, available: list[str], chosen: str) -> None:
    """Auto takes CUDA where it is present; a provider requested by name is taken."""
    assert choose_provider(requested, available) == chosen


@pytest.mark.parametrize("requested", ["cuda", "tpu"])
def test_a_missing_provider_is_an_error(requested: str) -> None:
    """There is no silent fallback."""
    with pytest.raises(ProviderError, match=requested):
        choose_provider(requested, [CPU])


def test_cuda_on_a_host_without_it_stops_the_start(tiny_package: Package) -> None:
    """The onnxruntime of this machine was built without CUDA."""
    with pytest.raises(ProviderError, match="make setup EXTRA=gpu"):
        OnnxBackend(tiny_package.graph, Layout.PACKED, BackendOptions(provider="cuda"))


@pytest.fixture
def backend(tiny_package: Package) -> OnnxBackend:
    """A backend over the tiny BERT."""
    return OnnxBackend(tiny_package.graph, tiny_package.layout, BackendOptions())


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="the machine has one core only")
def test_threads_inside_a_run_keep_off_the_core_of_its_worker(tiny_package: Package) -> None:
    """Of a session whose threads spin; a session with one thread has none to move."""
    graph, layout = tiny_package.graph, tiny_package.layout
    wide = OnnxBackend(graph, layout, BackendOptions(intra_op_threads=2, spins=True))
    narrow = OnnxBackend(graph, layout, BackendOptions())
    batch = collate([item(1, 2, 3)], layout)
    as_wide, as_narrow = wide.run(batch).hidden, narrow.run(batch).hidden
    assert as_wide is not None
    assert as_narrow is not None
    np.testing.assert_allclose(as_wide, as_narrow, atol=1e-6)
    (helper,) = wide._helpers.threads
    cores = os.sched_getaffinity(0)
    assert len(os.sched_getaffinity(helper)) == len(cores) - 1
    assert narrow._helpers.threads == ()


def test_a_saved_packed_graph_gives_the_same_bits(tiny_package: Package, tmp_path: Path) -> None:
    """With its layers to choose from, and without packing too, though that computes in another order."""
    graph, layout = tiny_package.graph, tiny_package.layout
    batch = collate([item(5, 6, 7), item(8)], layout)
    (tmp_path / "packed").mkdir()
    save_packed(graph, tmp_path / "packed" / "model.onnx")
    backends = [
        OnnxBackend(graph, layout, BackendOptions()),
        OnnxBackend(tmp_path / "packed" / "model.onnx", layout, BackendOptions(intra_op_threads=2)),
        OnnxBackend(graph, layout, BackendOptions(packs_weights=False)),
    ]
    assert len({backend.info for backend in backends}) == 1
    expected, packed, unpacked = [backend.run(batch).hidden for backend in backends]
    assert expected is not None
    assert packed is not None
    assert unpacked is not None
    np.testing.assert_array_equal(packed, expected)
    np.testing.assert_allclose(unpacked, expected, atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "packed").iterdir()) == [
        "model.onnx",
        "weights.bin",
    ]


def test_packed_hidden_states_do_not_depend_on_neighbours(backend: OnnxBackend) -> None:
    """As with the fake backend, an item's states are its own, whatever else the batch holds."""
    random = np.random.default_rng(3)
    items = [item(*random.integers(5, 100, n)) for n in (1, 2, 17, 24, 3)]
    together = backend.run(collate(items, backend.info.layout)).hidden
    alone = [backend.run(collate([each], backend.info.layout)).hidden for each in items]
    assert together is not None
    np.testing.assert_allclose(
        together, np.concatenate([a for a in alone if a is not None]), atol=1e-5
    )
    assert together.shape[1] == backend.info.hidden_size
    assert together.dtype == np.float32


def test_runtime_failures_keep_their_text_to_themselves(backend: OnnxBackend) -> None:
    """Messages of onnxruntime quote values; our error must not."""
    with pytest.raises(BackendError, match=r"^onnxruntime failed on this batch$"):
        backend.run(collate([item(1_000_000)], backend.info.layout))


def test_cost_counts_tokens_and_attention(backend: OnnxBackend) -> None:
    """A packed batch costs its tokens plus a little for attention."""
    assert 100 < backend.cost(np.array([50, 50])) < 150


def test_a_graph_says_what_its_attention_costs(tiny_package: Package, tmp_path: Path) -> None:
    """Windows make long texts cheaper, and layers that are known keep them apart; of other graphs nothing is known."""
    folder = tmp_path / "graph"
    shutil.copytree(tiny_package.graph.parent, folder)
    graph = folder / tiny_package.graph.name
    costs, mixed = [], []
    for kinds in ("[[2, 0, false]]", "[[1, 0, false], [1, 65, false]]", None):
        model = onnx.load(graph, load_external_data=False)
        properties = {p.key: p.value for p in model.metadata_props if p.key != KINDS_PROPERTY}
        helper.set_model_props(model, properties | ({KINDS_PROPERTY: kinds} if kinds else {}))
        onnx.save_model(model, graph)
        backend = OnnxBackend(graph, Layout.PACKED, BackendOptions())
        costs.append(backend.cost(np.array([4096])))
        mixed.append(backend.info.max_mixed_tokens)
    assert costs[0] == costs[2] > 1.5 * costs[1]
    assert mixed == [LONG_TOKENS, LONG_TOKENS, None]


def write_padded(
    path: Path, *, output: str = "last_hidden_state", extra: str = "", rows: int = 4
) -> None:
    """Write a graph as others make them: an embedding table over input_ids, and an extra input if one is named."""
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
    """Padding is removed from the states, so that pooling never sees it."""
    write_padded(tmp_path / "model.onnx")
    backend = OnnxBackend(tmp_path / "model.onnx", Layout.PADDED, BackendOptions())
    raw = backend.run(collate([item(1, 2, 3), item(3)], Layout.PADDED))
    assert raw.hidden is not None
    assert raw.hidden.tolist() == [[3, 4, 5], [6, 7, 8], [9, 10, 11], [9, 10, 11]]
    assert backend.info.hidden_size == 3


def test_a_graph_that_pools_gives_vectors(tmp_path: Path) -> None:
    """The output `sentence_embedding` is taken where there are no token states."""
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
def test_graphs_that_cannot_be_served_are_refused_at_start(
    tmp_path: Path, output: str, extra: str, reason: str
) -> None:
    """They fail when they are opened, not at the first request."""
    write_padded(tmp_path / "model.onnx", output=output, extra=extra)
    with pytest.raises(FormatError, match=reason):
        OnnxBackend(tmp_path / "model.onnx", Layout.PADDED, BackendOptions())


def test_a_corrupt_graph_is_refused(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(FormatError, match=r"model\.onnx: onnxruntime cannot open"):
        OnnxBackend(tmp_path / "model.onnx", Layout.PACKED, BackendOptions())


def test_items_with_one_token_run(backend: OnnxBackend) -> None:
    """The smallest batch that there is gives one state."""
    raw = backend.run(collate([Item(ids=np.array([7], np.int32))], backend.info.layout))
    assert raw.hidden is not None
    assert raw.hidden.shape == (1, backend.info.hidden_size)
