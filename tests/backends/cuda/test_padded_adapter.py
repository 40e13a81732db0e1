"""Other people's graphs on a device: padded, filled up to few sizes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.backends.cuda.backend import DeviceBackend
from nestvec.backends.cuda.shapes import padded_bucket_for, padded_buckets, padded_shape
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions, DeviceOptions
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.types import Layout
from nestvec.engine.vectors.pooler import Outputs
from nestvec.errors import FormatError
from nestvec.export.architectures import export_padded_graph

from tests.backends.cuda.host_device import HostDevice, host_line, opener
from tests.export.families.harness import load
from tests.support.fakes import item

ITEMS = [item(*range(1, n)) for n in (5, 2, 30, 9, 40)]


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """A tiny BERT's, as others would have it."""
    family = load("bert")
    family.write(tmp_path)
    export_padded_graph(tmp_path, family.config, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_vectors_are_those_of_the_cpu(graph: Path) -> None:
    """Whatever is filled up around them; no row is longer than the model has positions."""
    line = host_line(HostDevice())
    options = DeviceOptions(40, 256, captured_tokens=0)
    backend = DeviceBackend(graph, line, opener(line), options, Layout.PADDED)
    cpu = OnnxBackend(graph, Layout.PADDED, BackendOptions(provider="cpu"))
    assert (backend.layout, backend.pooling, backend.gives_tokens) == (Layout.PADDED, "", True)
    for items in (ITEMS, ITEMS[:1], ITEMS[4:], ITEMS[:3]):
        found = raw_vectors(backend, items, Outputs("mean"))
        expected = raw_vectors(cpu, items, Outputs("mean"))
        np.testing.assert_allclose(found, expected, atol=2e-5)
    backend.close()


def test_a_packed_graph_is_none_of_these(tmp_path: Path, graph: Path) -> None:
    """And the other way round."""
    line = host_line()
    options = DeviceOptions(40, 256, captured_tokens=0)
    with pytest.raises(FormatError, match="nothing can feed"):
        DeviceBackend(graph, line, opener(line), options)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40))
def test_sizes_hold_their_batches_and_are_few(lengths: list[int]) -> None:
    """At most four times the cells that are needed; else the batch runs by itself."""
    own = np.array(lengths)
    exact = padded_shape(own, 100)
    assert exact.inputs >= len(own)
    assert exact.longest >= own.max()
    assert exact.longest <= 100
    shapes = padded_buckets(2048, 100)
    assert len(shapes) < 30
    found = padded_bucket_for(own, shapes, 100)
    if found is not None:
        assert found.inputs >= len(own)
        assert found.longest >= own.max()
        assert found.tokens <= 4 * exact.tokens
