"""Graphs that a folder brings along: which is taken, what belongs to it, and what is refused for its own reason."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import Layout
from nestvec.errors import FormatError
from nestvec.model_store.artefacts.fingerprint import HashCache, space_fingerprint
from nestvec.model_store.folder.model_folder import ModelFolder, read_model_folder
from onnx import TensorProto, helper, numpy_helper

from tests.support.fakes import item
from tests.support.tiny import CONFIG, write_json, write_tiny_bert


def write_graph(
    path: Path, *, id_type: int = TensorProto.INT64, external: str = "", is_dynamic: bool = False
) -> None:
    """Write a graph that looks token ids up in a table of 128 rows of 3 values."""
    table = np.arange(128 * 3, dtype=np.float32).reshape(128, 3)
    shape: list[str | int | None] = ["B", "S"]
    inputs = [
        helper.make_tensor_value_info(name, id_type, shape)
        for name in ("input_ids", "attention_mask")
    ]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])]
    if is_dynamic:
        nodes.append(
            helper.make_node("DynamicQuantizeLinear", ["last_hidden_state"], ["q", "s", "z"])
        )
    outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["B", "S", 3])]
    graph = helper.make_graph(
        nodes, "own", inputs, outputs, [numpy_helper.from_array(table, "table")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.parent.mkdir(exist_ok=True)
    if external:
        onnx.save_model(
            model, path, save_as_external_data=True, location=external, size_threshold=0
        )
    else:
        onnx.save_model(model, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a folder of a family that the exporter does not know, without weights."""
    folder = write_tiny_bert(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    write_json(folder / "config.json", {**CONFIG, "model_type": "unknown"})
    return folder


def names_of(model: ModelFolder) -> list[str]:
    """Names of the files that decide the vectors, relative to the folder."""
    return [str(path.relative_to(model.path)) for path in model.weights]


@pytest.mark.parametrize(
    "name",
    [
        "model_optimized.onnx",
        "onnx/model_optimized.onnx",
        "model_quantized.onnx",
        "onnx/model_quantized.onnx",
    ],
)
def test_graphs_by_other_names_are_taken(folder: Path, name: str) -> None:
    """Optimum and fastembed write them; they are taken where there is no `model.onnx`."""
    write_graph(folder / name)
    assert read_model_folder(folder).onnx_file == name
    write_graph(folder / "model.onnx")
    assert read_model_folder(folder).onnx_file == "model.onnx"


def test_a_dynamically_quantised_graph_is_refused_for_its_reason(folder: Path) -> None:
    """Its scales come from the whole batch, so that texts would change each other's vectors."""
    write_graph(folder / "onnx/model_quantized.onnx", is_dynamic=True)
    with pytest.raises(FormatError, match=r"model_quantized\.onnx.*DynamicQuantizeLinear"):
        read_model_folder(folder)


def test_ids_may_be_int32(folder: Path) -> None:
    """The graph's own type is fed, whatever collation makes."""
    write_graph(folder / "model.onnx", id_type=TensorProto.INT32)
    backend = OnnxBackend(folder / "model.onnx", Layout.PADDED, BackendOptions())
    states = backend.run(collate([item(1, 2), item(3)], Layout.PADDED)).hidden
    assert states is not None
    assert states.tolist() == [[3, 4, 5], [6, 7, 8], [9, 10, 11]]


@pytest.mark.parametrize("external", ["weights.bin", "model.onnx_data", "model.onnx_data_1"])
def test_external_weights_are_part_of_the_space(
    folder: Path, tmp_path: Path, external: str
) -> None:
    """Whatever the file is called; other numbers in it are another space."""
    write_graph(folder / "onnx/model.onnx", external=external)
    model = read_model_folder(folder)
    assert names_of(model) == ["onnx/model.onnx", f"onnx/{external}"]
    before = space_fingerprint(model, HashCache(tmp_path / "hashes"))
    path = folder / "onnx" / external
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    assert space_fingerprint(model, HashCache(tmp_path / "other")) != before


def test_missing_external_weights_are_named(folder: Path) -> None:
    """The message says which file the graph asks for."""
    write_graph(folder / "model.onnx", external="weights.bin")
    (folder / "weights.bin").unlink()
    with pytest.raises(FormatError, match=r"model\.onnx: its weights lie in 'weights\.bin'"):
        read_model_folder(folder)


def test_external_weights_outside_the_folder_are_refused(folder: Path) -> None:
    """A graph of others must not make us read any file of the disk."""
    write_graph(folder / "model.onnx", external="weights.bin")
    model = onnx.load_model(folder / "model.onnx", load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../weights.bin"
    onnx.save_model(model, folder / "model.onnx")
    with pytest.raises(FormatError, match="outside the folder"):
        read_model_folder(folder)


def test_what_is_no_graph_is_refused(folder: Path) -> None:
    """Git LFS pointers and cut files are named."""
    (folder / "model.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(FormatError, match=r"model\.onnx: not a readable ONNX graph"):
        read_model_folder(folder)
