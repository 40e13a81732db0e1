"""Graphs that others made on a device: padded, and rounded up to few sizes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.backends.cuda.backend import DeviceBackend
from nestvec.backends.cuda.layout.shapes import padded_shape
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions, DeviceOptions
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.types import Layout
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import FormatError
from nestvec.export.architectures import export_padded_graph

from tests.backends.cuda.host_device import HostDevice, host_thread, opener
from tests.export.families.harness import load
from tests.support.fakes import item

ITEMS = [item(*range(1, n)) for n in (5, 2, 30, 9, 40)]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A tiny BERT's graph as others would export it."""
    family = load("bert")
    family.write(tmp_path)
    export_padded_graph(tmp_path, family.config, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_vectors_are_those_of_the_cpu(graph: Path) -> None:
    """Padding changes none of them, and no row is longer than the model has positions."""
    thread = host_thread(HostDevice())
    options = DeviceOptions(40, 256, captured_tokens=0)
    backend = DeviceBackend(graph, thread, opener(thread), options, Layout.PADDED)
    cpu = OnnxBackend(graph, Layout.PADDED, BackendOptions(provider="cpu"))
    assert (backend.info.layout, backend.info.pooling, backend.info.gives_tokens) == (
        Layout.PADDED,
        "",
        True,
    )
    for items in (ITEMS, ITEMS[:1], ITEMS[4:], ITEMS[:3]):
        vectors = raw_vectors(backend, items, Pooler("mean"))
        expected = raw_vectors(cpu, items, Pooler("mean"))
        np.testing.assert_allclose(vectors, expected, atol=2e-5)
    backend.close()


def test_a_padded_graph_cannot_be_opened_as_a_packed_one(tmp_path: Path, graph: Path) -> None:
    """Its inputs are not those that the packed adapter can feed."""
    thread = host_thread()
    options = DeviceOptions(40, 256, captured_tokens=0)
    with pytest.raises(FormatError, match="nothing can feed"):
        DeviceBackend(graph, thread, opener(thread), options)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40))
def test_padded_sizes_hold_their_batches_and_are_few(lengths: list[int]) -> None:
    """No row is longer than the model has positions, and numbers of rows are powers of two."""
    batch = np.array(lengths)
    exact = padded_shape(batch, 100)
    assert len(batch) <= exact.inputs < 2 * len(batch)
    assert exact.inputs & (exact.inputs - 1) == 0
    assert batch.max() <= exact.longest <= 100


def test_a_graph_that_others_made_is_not_captured(graph: Path) -> None:
    """Any of its ops may copy from memory that is freed later, which a captured run would go on reading."""
    thread = host_thread(HostDevice())
    options = DeviceOptions(40, 256, captured_tokens=256)
    backend = DeviceBackend(graph, thread, opener(thread), options, Layout.PADDED)
    assert backend.captured_shapes == ()
    backend.close()
