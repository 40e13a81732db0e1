"""Every family's graph for CUDA, its packed attentions written out, against transformers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from nestvec.backends.cuda.backend import DeviceBackend
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions, DeviceOptions
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import ItemOptions, Layout
from nestvec.errors import FormatError
from nestvec.export.architectures import ExportOptions, export_graph
from nestvec.export.device_graph import DeviceExportOptions, export_device_graph
from nestvec.export.graph.builder import FloatType
from nestvec.export.graph.inputs import DeviceAttention
from numpy.typing import NDArray

from tests.backends.cuda.host_device import open_emulated
from tests.export.families.harness import Family, all_families, distinct_families, load, states
from tests.support.fakes import item

OPTIONS = DeviceOptions(max_tokens=40, max_batch_tokens=256, captured_tokens=0)


def opened_as(family: Family, folder: Path, export_options: DeviceExportOptions) -> DeviceBackend:
    """Export a family's graph for a device, and open it over its emulation."""
    family.write(folder)
    graph = folder / "model.onnx"
    export_device_graph(folder, family.config, graph, export_options)
    return open_emulated(graph, OPTIONS)


def hidden(backend: DeviceBackend, inputs: list[list[int]]) -> NDArray[np.float32]:
    """Run inputs together and return their states, (T, H), float32."""
    output = backend.run(collate([item(*ids) for ids in inputs], Layout.PACKED)).hidden
    assert output is not None
    return output


@pytest.mark.parametrize("name", all_families())
def test_in_float32_states_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """This covers every op, bias and mask of every family; neighbours in a batch change nothing."""
    family = load(name)
    backend = opened_as(
        family, tmp_path, DeviceExportOptions(FloatType.FP32, DeviceAttention.PACKED)
    )
    together = hidden(backend, family.inputs)
    assert np.abs(together - np.concatenate(family.expected)).max() < 1e-4
    alone = np.concatenate([hidden(backend, [ids]) for ids in family.inputs])
    assert np.abs(together - alone).max() < 1e-5, "a vector depends on its own text only"
    backend.close()


@pytest.mark.parametrize("attention", list(DeviceAttention))
@pytest.mark.parametrize("name", distinct_families())
def test_in_float16_vectors_are_near(name: str, attention: DeviceAttention, tmp_path: Path) -> None:
    """This holds by either attention, with vectors pooled in the graph."""
    family = load(name)
    backend = opened_as(family, tmp_path, DeviceExportOptions(FloatType.FP16, attention))
    batch = collate([item(*ids) for ids in family.inputs], Layout.PACKED, pools=True)
    vectors = backend.run(batch).pooled
    assert vectors is not None
    expected = np.stack([rows.mean(axis=0) for rows in family.expected])
    assert cosines(vectors, expected).min() > 0.9999
    backend.close()


def cosines(vectors: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine of each row with the expected one, (n,), float64."""
    a, b = vectors.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products: NDArray[np.float64] = (a * b).sum(axis=1) / norms
    return products


def wide(name: str, **changes: object) -> Family:
    """Return a family's tiny model with heads that PagedAttention takes; its shapes follow from the configuration."""
    family = load(name)
    config = {**family.config, **changes}
    # Without a head width there are fewer heads of the same states.
    if "head_dim" not in changes:
        return Family(name, config, family.tensors, family.inputs, family.expected)
    random = np.random.default_rng(5)
    head = int(config["head_dim"])
    sizes = {
        "q": int(config["num_attention_heads"]) * head,
        "k": int(config["num_key_value_heads"]) * head,
    }
    tensors = {}
    for key, tensor in family.tensors.items():
        shape = list(tensor.shape)
        part = key.split(".")[-2]
        if part in ("q_proj", "k_proj", "v_proj"):
            shape[0] = sizes["q" if part == "q_proj" else "k"]
        elif part == "o_proj":
            shape[1] = sizes["q"]
        elif part in ("q_norm", "k_norm"):
            shape = [head]
        offset = 1 if len(shape) == 1 and "norm" in key else 0
        values = random.standard_normal(shape) * 0.2 + offset
        tensors[key] = values.astype(np.float32)
    return Family(name, config, tensors, family.inputs, family.expected)


FEWER_HEADS: dict[str, dict[str, object]] = {
    "gte": {"num_attention_heads": 2},
    "jina_embeddings_v3": {"num_attention_heads": 2},
    "modernbert": {"num_attention_heads": 2},
    "nomic_bert": {"num_attention_heads": 2, "n_head": 2},
    "olmo2": {"num_attention_heads": 2, "num_key_value_heads": 1},
    "phi3": {"num_attention_heads": 2, "num_key_value_heads": 1},
}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("qwen3", {"head_dim": 16}),
        ("qwen2", {"head_dim": 16}),
        ("llama", {"head_dim": 32}),
        ("mistral", {"head_dim": 16, "sliding_window": 4}),
        ("gemma3_text~causal", {"head_dim": 16}),
        ("gemma3_text", {"head_dim": 16}),
        ("eurobert", {"head_dim": 16}),
        # Capped scores, and a window in every second layer.
        ("gemma2", {"head_dim": 16}),
        *FEWER_HEADS.items(),
    ],
)
def test_paged_attention_does_norms_rotation_grouped_queries_and_causal_masks(
    name: str, changes: dict[str, object], tmp_path: Path
) -> None:
    """States are those of the graph for the CPU, which is right for every family."""
    family = wide(name, **changes)
    expected = states(family.open(tmp_path / "cpu"), family.inputs)
    backend = opened_as(
        family, tmp_path / "device", DeviceExportOptions(FloatType.FP16, DeviceAttention.PAGED)
    )
    graph = (tmp_path / "device" / "model.onnx").read_bytes()
    assert b"PagedAttention" in graph
    assert cosines(hidden(backend, family.inputs), expected).min() > 0.999
    backend.close()


IN_BF16: dict[str, dict[str, object]] = {
    **FEWER_HEADS,
    "bert": {"num_attention_heads": 2},
    "roberta": {"num_attention_heads": 2},
    "llama": {"head_dim": 32},
    "qwen3": {"head_dim": 16},
    "gemma3_text~causal": {"head_dim": 16},
}


@pytest.mark.parametrize("name", sorted(set(IN_BF16) - {"modernbert"}))
def test_in_bfloat16_paged_attention_serves_models_without_rotary_embeddings_too(
    name: str, tmp_path: Path
) -> None:
    """The emulation sums more widely than a GPU: the test shows that the graph means the same with rounded weights."""
    family = wide(name, **IN_BF16[name])
    expected = states(family.open(tmp_path / "cpu"), family.inputs)
    backend = opened_as(family, tmp_path / "device", DeviceExportOptions(FloatType.BF16))
    graph = (tmp_path / "device" / "model.onnx").read_bytes()
    assert b"PagedAttention" in graph
    assert b"PackedMultiHeadAttention" not in graph
    assert cosines(hidden(backend, family.inputs), expected).min() > 0.995
    backend.close()


def device_nodes(name: str, folder: Path) -> list[onnx.NodeProto]:
    """Return the nodes of a family's graph for a device, in float16."""
    family = load(name)
    family.write(folder)
    graph = folder / "model.onnx"
    export_device_graph(folder, family.config, graph, DeviceExportOptions())
    return list(onnx.load(str(graph), load_external_data=False).graph.node)


def test_projections_are_read_apart_and_without_biases_that_change_nothing(tmp_path: Path) -> None:
    """Softmax does not see a bias of keys, and one of values comes out of attention as it is."""
    nodes = device_nodes("bert", tmp_path)
    layers = load("bert").config["num_hidden_layers"]
    attentions = [node for node in nodes if node.op_type == "PackedMultiHeadAttention"]
    assert len(attentions) == layers
    assert all(all(node.input[:3]) and not node.input[3] for node in attentions)
    read = {name for node in nodes for name in node.input}
    for projection, count in (("query", layers), ("key", 0), ("value", 0)):
        biases = [name for name in read if name.endswith(f"self.{projection}.bias")]
        assert len(biases) == count


@pytest.mark.parametrize("name", ["deberta-v2", "deberta-v2~own-projections"])
def test_positions_are_products_of_equal_batches(name: str, tmp_path: Path) -> None:
    """Others are copied arrays of pointers in CUDA's provider, in every run, and leave memory behind."""
    nodes = device_nodes(name, tmp_path)
    of_positions = [node for node in nodes if any(".position_" in value for value in node.input)]
    assert of_positions
    assert {node.op_type for node in of_positions} == {"MatMul"}
    model = onnx.load(str(tmp_path / "model.onnx"), load_external_data=False)
    sizes = {weight.name: list(weight.dims) for weight in model.graph.initializer}
    heads = load(name).config["num_attention_heads"]
    assert all(sizes[node.input[1]][0] == heads for node in of_positions)
    assert all(len(sizes[node.input[1]]) == 3 for node in of_positions)


def test_attention_that_no_kernel_does_in_bfloat16_is_refused(tmp_path: Path) -> None:
    """No kernel has a window to both sides of a token in bfloat16."""
    family = wide("modernbert", **IN_BF16["modernbert"])
    with pytest.raises(FormatError, match="precision bf16"):
        opened_as(family, tmp_path, DeviceExportOptions(FloatType.BF16))


def test_an_exit_gives_the_states_of_its_layers(tmp_path: Path) -> None:
    """They pass the final norm too, as on the CPU."""
    for name in ("bert", "qwen3"):
        family = load(name)
        folder = tmp_path / name
        backend = opened_as(family, folder, DeviceExportOptions(FloatType.FP32, has_exits=True))
        graph = folder / "cpu" / "model.onnx"
        graph.parent.mkdir()
        export_graph(folder, family.config, graph, ExportOptions(takes_layer_count=True))
        reference = OnnxBackend(graph, Layout.PACKED, BackendOptions(provider="cpu"))
        assert backend.info.layers == reference.info.layers > 1
        items = [item(*ids) for ids in family.inputs]
        exits = [ItemOptions(exits=(1,))] * len(items)
        batch = collate(items, Layout.PACKED, exits)
        expected, early = reference.run(batch).hidden, backend.run(batch).hidden
        assert expected is not None
        assert early is not None
        assert np.abs(expected - early).max() < 1e-4
        whole = hidden(backend, family.inputs)
        assert np.abs(whole - early).max() > 1e-2
        backend.close()
