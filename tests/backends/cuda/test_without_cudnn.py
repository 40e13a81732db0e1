"""No graph of ours needs cuDNN, which the extra `gpu` does not bring."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from nestvec.backends.ort import backend_error
from nestvec.engine.backend import DeviceOptions
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import Layout
from nestvec.export.device_graph import DeviceExportOptions, export_device_graph
from nestvec.export.graph.builder import FloatType
from nestvec.export.graph.inputs import DeviceAttention
from nestvec.export.layers.device_pooling import DEVICE_POOLINGS
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernelError

from tests.backends.cuda.host_device import open_emulated
from tests.export.families.harness import all_families, load
from tests.support.fakes import item

# Ops for which the CUDA provider of onnxruntime 1.31.1 has no kernel without cuDNN, tried one by one. ReduceMean is
# computed by its own kernel over the last axis only.
NEED_CUDNN = {
    *("ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd", "Einsum", "Conv"),
    *("ConvTranspose", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"),
}


def ops_on_device(path: Path) -> set[str]:
    """Return the kinds of nodes that compute on values; those on shapes run on the host."""
    graph = onnx.load(path, load_external_data=False).graph
    shapes = {out for node in graph.node if node.op_type == "Shape" for out in node.output}
    return {node.op_type for node in graph.node if not shapes & set(node.input)}


@pytest.mark.parametrize("pooling", sorted(DEVICE_POOLINGS))
def test_no_pooling_needs_cudnn(pooling: str, tmp_path: Path) -> None:
    """Its product, its selection and its maximum are of ops that CUDA itself has."""
    family = load("bert")
    family.write(tmp_path)
    path = tmp_path / "device.onnx"
    export_device_graph(tmp_path, family.config, path, DeviceExportOptions(pooling=pooling))
    assert not ops_on_device(path) & NEED_CUDNN


@pytest.mark.parametrize("name", all_families())
def test_no_family_needs_cudnn(name: str, tmp_path: Path) -> None:
    """In half floats and in whole ones."""
    family = load(name)
    family.write(tmp_path)
    for float_type in (FloatType.FP16, FloatType.FP32):
        path = tmp_path / f"{float_type}.onnx"
        options = DeviceExportOptions(float_type, DeviceAttention.PACKED)
        export_device_graph(tmp_path, family.config, path, options)
        assert not ops_on_device(path) & NEED_CUDNN


def test_maxima_are_those_of_the_states(tmp_path: Path) -> None:
    """The greatest value of each column over an input's tokens, also of a single token."""
    family = load("bert")
    family.write(tmp_path)
    path = tmp_path / "device.onnx"
    options = DeviceExportOptions(FloatType.FP32, DeviceAttention.PACKED, pooling="max")
    export_device_graph(tmp_path, family.config, path, options)
    backend = open_emulated(path, DeviceOptions(40, 256, captured_tokens=0))
    batch = collate([item(*ids) for ids in family.inputs], Layout.PACKED, pools=True)
    vectors = backend.run(batch).pooled
    assert vectors is not None
    expected = np.stack([rows.max(axis=0) for rows in family.expected])
    assert np.abs(vectors - expected).max() < 1e-4
    backend.close()


def test_a_graph_of_others_that_needs_cudnn_is_told_so() -> None:
    """The words are onnxruntime's; its other missing kernels stay unnamed, as they may quote values."""
    said = (
        "running ReduceMax node. Status Message: cuDNN is unavailable for CUDA Execution Provider"
    )
    assert "pip install 'nestvec[cudnn]'" in backend_error(NoKernelError(said)).message
    assert backend_error(NoKernelError("a text")).message == "onnxruntime failed on this batch"
