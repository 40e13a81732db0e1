"""Every family's graph for CUDA, its packed attentions written out, against transformers."""

from pathlib import Path

import numpy as np
import pytest
from nestvec.backends.cuda.backend import DeviceBackend
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions, DeviceOptions
from nestvec.engine.core.collate import collate
from nestvec.engine.types import Layout
from nestvec.errors import FormatError
from nestvec.export.architectures import Recipe, export_graph
from nestvec.export.device_graph import DeviceRecipe, export_device_graph
from nestvec.export.graph.builder import FloatType
from nestvec.export.graph.inputs import DeviceRoute
from numpy.typing import NDArray

from tests.backends.cuda.host_device import open_emulated
from tests.export.families.harness import Family, all_families, load, states
from tests.support.fakes import item

OPTIONS = DeviceOptions(max_tokens=40, max_batch_tokens=256, captured_tokens=0)


def opened_as(family: Family, folder: Path, recipe: DeviceRecipe) -> DeviceBackend:
    """A family exported for a device, over its emulation."""
    family.write(folder)
    graph = folder / "model.onnx"
    export_device_graph(folder, family.config, graph, recipe)
    return open_emulated(graph, OPTIONS)


def hidden(backend: DeviceBackend, inputs: list[list[int]]) -> NDArray[np.float32]:
    """States of inputs that run together, (T, H)."""
    found = backend.run(collate([item(*ids) for ids in inputs], Layout.PACKED)).hidden
    assert found is not None
    return found


@pytest.mark.parametrize("name", all_families())
def test_in_float32_states_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """Each op, each bias, each mask."""
    family = load(name)
    backend = opened_as(family, tmp_path, DeviceRecipe(FloatType.FP32, DeviceRoute.PACKED))
    found = hidden(backend, family.inputs)
    assert np.abs(found - np.concatenate(family.expected)).max() < 1e-4
    alone = np.concatenate([hidden(backend, [ids]) for ids in family.inputs])
    assert np.abs(found - alone).max() < 1e-5, "a vector depends on its own text only"
    backend.close()


@pytest.mark.parametrize("route", list(DeviceRoute))
@pytest.mark.parametrize("name", all_families())
def test_in_float16_vectors_are_near(name: str, route: DeviceRoute, tmp_path: Path) -> None:
    """By either attention, pooled in the graph."""
    family = load(name)
    backend = opened_as(family, tmp_path, DeviceRecipe(FloatType.FP16, route))
    batch = collate([item(*ids) for ids in family.inputs], Layout.PACKED, pools=True)
    found = backend.run(batch).pooled
    assert found is not None
    expected = np.stack([one.mean(axis=0) for one in family.expected])
    assert cosines(found, expected).min() > 0.9999
    backend.close()


def cosines(found: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each row with its own, (n,)."""
    one, other = found.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    near: NDArray[np.float64] = (one * other).sum(axis=1) / norms
    return near


def wide(name: str, **changes: object) -> Family:
    """A family's tiny model with heads that PagedAttention takes; its shapes follow from the configuration."""
    family = load(name)
    config = {**family.config, **changes}
    if "head_dim" not in changes:  # fewer heads of the same states
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
        made = random.standard_normal(shape) * 0.2 + (1 if len(shape) == 1 and "norm" in key else 0)
        tensors[key] = made.astype(np.float32)
    return Family(name, config, tensors, family.inputs, family.expected)


FEWER_HEADS: dict[str, dict[str, object]] = {
    "gte": {"num_attention_heads": 2},
    "jina_embeddings_v3": {"num_attention_heads": 2},
    "modernbert": {"num_attention_heads": 2},
    "nomic_bert": {"num_attention_heads": 2, "n_head": 2},
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
        *FEWER_HEADS.items(),
    ],
)
def test_paged_attention_norms_turns_shares_and_looks_back(
    name: str, changes: dict[str, object], tmp_path: Path
) -> None:
    """Against the graph for CPU, which is right for every family."""
    family = wide(name, **changes)
    expected = states(family.open(tmp_path / "cpu"), family.inputs)
    backend = opened_as(
        family, tmp_path / "device", DeviceRecipe(FloatType.FP16, DeviceRoute.PAGED)
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
def test_in_bfloat16_pages_serve_those_that_turn_no_heads_too(name: str, tmp_path: Path) -> None:
    """Sums are wider here than there; what is tested is that the graph means the same, with its weights rounded."""
    family = wide(name, **IN_BF16[name])
    expected = states(family.open(tmp_path / "cpu"), family.inputs)
    backend = opened_as(family, tmp_path / "device", DeviceRecipe(FloatType.BF16))
    graph = (tmp_path / "device" / "model.onnx").read_bytes()
    assert b"PagedAttention" in graph
    assert b"PackedMultiHeadAttention" not in graph
    assert cosines(hidden(backend, family.inputs), expected).min() > 0.995
    backend.close()


def test_what_no_kernel_does_in_bfloat16_is_refused(tmp_path: Path) -> None:
    """Layers that see to both sides, but not far."""
    family = wide("modernbert", **IN_BF16["modernbert"])
    with pytest.raises(FormatError, match="precision bf16"):
        opened_as(family, tmp_path, DeviceRecipe(FloatType.BF16))


def test_an_exit_gives_what_its_layers_make(tmp_path: Path) -> None:
    """Through the norm behind the last layer too, as on CPU."""
    for name in ("bert", "qwen3"):
        family = load(name)
        folder = tmp_path / name
        backend = opened_as(family, folder, DeviceRecipe(FloatType.FP32, has_exits=True))
        graph = folder / "cpu" / "model.onnx"
        graph.parent.mkdir()
        export_graph(folder, family.config, graph, Recipe(asks_layers=True))
        reference = OnnxBackend(graph, Layout.PACKED, BackendOptions(provider="cpu"))
        assert backend.layers == reference.layers > 1
        items = [item(*ids, exits=(1,)) for ids in family.inputs]
        batch = collate(items, Layout.PACKED)
        expected, found = reference.run(batch).hidden, backend.run(batch).hidden
        assert expected is not None
        assert found is not None
        assert np.abs(expected - found).max() < 1e-4
        whole = hidden(backend, family.inputs)
        assert np.abs(whole - found).max() > 1e-2
        backend.close()
