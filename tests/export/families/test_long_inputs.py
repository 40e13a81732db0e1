"""Attention of long inputs, in blocks, loops and kernels of its own: the same states as by whole matrices of scores."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nestvec.backends import attention_blocks
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine import backend as engine_backend
from nestvec.engine.backend import BLOCK_QUERIES, LONG_TOKENS, Backend, BackendOptions
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import Item, Layout
from nestvec.export.architectures import ROTARY_TYPES, ExportOptions, export_graph
from nestvec.export.graph import inputs as graph_inputs
from nestvec.export.layers.attention import AttentionOps
from nestvec.export.layers.masks import MAX_BLOCK_WINDOW
from numpy.typing import NDArray

from tests.export.families.harness import Family, load

# Of the largest state. Measured: 3e-6; 3e-5 where angles are looked up, since those that graphs compute are rounded to
# float32 before their cosines are taken.
TOLERANCE = 1e-5
LOOKED_UP_TOLERANCE = 1e-4
MAX_TOKENS = 800
FAMILIES = (
    "bert",
    "gemma3_text",
    "gemma3_text~causal",
    "jina_bert",
    "llama",
    "modernbert",
    "mpnet",
    "qwen3",
    "t5",
)


def long_family(name: str, **fields: Any) -> Family:
    """A family's tiny model for longer inputs, with other fields in its configuration."""
    family = load(name)
    config = {**family.config, **fields}
    tensors = dict(family.tensors)
    if "max_position_embeddings" in config:
        config["max_position_embeddings"] = MAX_TOKENS + 2
    if "seq_length" in config:
        config["seq_length"] = MAX_TOKENS
    if "n_positions" in config:
        config["n_positions"] = MAX_TOKENS
    for key, tensor in tensors.items():
        if "position_embeddings" in key:
            rows = np.random.default_rng(3).standard_normal((MAX_TOKENS + 2, tensor.shape[1]))
            tensors[key] = (0.1 * rows).astype(np.float32)
    return dataclasses.replace(family, config=config, tensors=tensors)


def open_with(family: Family, folder: Path, ops: AttentionOps) -> OnnxBackend:
    """Export a graph with some of the operators."""
    folder = folder / ops
    family.write(folder)
    export_graph(folder, family.config, folder / "model.onnx", ExportOptions(attention=ops))
    return OnnxBackend(folder / "model.onnx", Layout.PACKED, BackendOptions())


def states_of(
    backend: Backend, vocabulary: int, lengths: tuple[int, ...], expansion: int = 0
) -> NDArray[np.float32]:
    """States of random inputs of these lengths, [T, H]."""
    random = np.random.default_rng(7)
    ids = [random.integers(3, vocabulary, length).astype(np.int32) for length in lengths]
    items = [Item(row, expansion=expansion) for row in ids]
    hidden = backend.run(collate(items, backend.info.layout)).hidden
    assert hidden is not None
    return np.asarray(hidden, np.float32)


def assert_close(
    states: NDArray[np.float32], expected: NDArray[np.float32], ops: AttentionOps, what: object
) -> None:
    """Compare states with others."""
    difference = np.abs(states - expected).max() / max(1.0, float(np.abs(expected).max()))
    limit = LOOKED_UP_TOLERANCE if ops is AttentionOps.PORTABLE else TOLERANCE
    assert difference < limit, (ops, what)


def check(family: Family, folder: Path, batches: list[tuple[int, ...]]) -> None:
    """Compare each of the operators with a padded graph, which has whole matrices only."""
    expected = family.open(folder / "padded", padded=True)
    vocabulary = family.config["vocab_size"]
    for ops in AttentionOps:
        backend = open_with(family, folder, ops)
        for lengths in batches:
            packed, whole = (states_of(one, vocabulary, lengths) for one in (backend, expected))
            assert_close(packed, whole, ops, lengths)


def test_exporter_and_engine_mean_the_same_lengths() -> None:
    """Neither may import the other's constants."""
    assert graph_inputs.LONG_TOKENS == engine_backend.LONG_TOKENS
    assert graph_inputs.MASKED_SCORE == attention_blocks.MASKED_SCORE
    assert LONG_TOKENS > BLOCK_QUERIES


@pytest.mark.parametrize("name", ["bloom", "gemma2"])
def test_caps_and_causal_penalties_of_long_inputs(tmp_path: Path, name: str) -> None:
    """Capped scores have no kernel in blocks, and a causal penalty comes piece by piece."""
    check(long_family(name), tmp_path, [(LONG_TOKENS + 1,), (3, 200, 200)])


@pytest.mark.parametrize("name", FAMILIES)
def test_long_inputs_are_as_with_whole_matrices(tmp_path: Path, name: str) -> None:
    """Alone, several of one length, and mixed with short ones, on both sides of where the ways part."""
    batches = [(LONG_TOKENS,), (LONG_TOKENS + 1,), (257, 257), (3, 300, 129, 640), (513, 513)]
    check(long_family(name), tmp_path, batches)


@pytest.mark.parametrize(
    ("name", "field", "size"),
    [
        ("modernbert", "local_attention", 2),
        ("modernbert", "local_attention", 128),
        ("modernbert", "local_attention", 2 * LONG_TOKENS + 60),
        ("modernbert", "local_attention", 2 * MAX_TOKENS),
        ("modernbert", "local_attention", 2 * MAX_BLOCK_WINDOW + 2),
        ("mistral", "sliding_window", 1),
        ("mistral", "sliding_window", 64),
        ("mistral", "sliding_window", LONG_TOKENS + 8),
        ("mistral", "sliding_window", 2 * MAX_BLOCK_WINDOW),
    ],
)
def test_windows_of_every_size(tmp_path: Path, name: str, field: str, size: int) -> None:
    """One token, about a block, wider than what is short, wider than any input, too wide for blocks."""
    window = size if name == "mistral" else size // 2 + 1
    lengths = {BLOCK_QUERIES * 2 + n for n in (-1, 0, 1)} | {LONG_TOKENS + 1, 2 * window + 1}
    lengths |= {length for n in (-1, 0, 1) if (length := window + n) > 0}
    batches: list[tuple[int, ...]] = [(n,) for n in sorted(lengths) if n <= MAX_TOKENS]
    check(long_family(name, **{field: size}), tmp_path, [*batches, (1, 500, 64, 500)])


@pytest.mark.parametrize("name", ["modernbert", "llama", "mistral", "jina_bert"])
def test_expansions_stay_unseen_in_long_inputs(tmp_path: Path, name: str) -> None:
    """The last tokens of an input see it, and nobody sees them: the others' states are those without them."""
    family = long_family(name)
    vocabulary = family.config["vocab_size"]
    for ops in AttentionOps:
        backend = open_with(family, tmp_path, ops)
        for length in (40, 300):
            expanded = states_of(backend, vocabulary, (length,), expansion=8)
            without = states_of(backend, vocabulary, (length - 8,))
            assert_close(expanded[:-8], without, ops, length)


def test_rotary_families_are_known(tmp_path: Path) -> None:
    """Graphs for other runtimes look angles up, since bfloat16 cannot count beyond 256; their space says so."""
    for name in ROTARY_TYPES | {"bert", "mpnet", "jina_bert", "t5"}:
        family = load(name)
        family.write(tmp_path / name)
        path = tmp_path / name / "model.onnx"
        export_graph(
            path.parent, family.config, path, ExportOptions(attention=AttentionOps.PORTABLE)
        )
        graph = onnx.load(path, load_external_data=False).graph
        has_tables = any(weight.name.startswith("cosines") for weight in graph.initializer)
        assert has_tables == (name in ROTARY_TYPES), name
        assert not any(node.op_type in ("Cos", "Sin") for node in graph.node)


def test_graphs_say_what_their_layers_compute(tmp_path: Path) -> None:
    """Prices of batches come from the graph: windows in blocks, causal kernels, whole squares."""
    kinds = {
        name: open_with(long_family(name), tmp_path / name, AttentionOps.BY_LENGTH)._cost.kinds
        for name in ("bert", "modernbert", "llama", "mistral")
    }
    assert {name: [(k.layers, k.window, k.is_causal) for k in kinds[name]] for name in kinds} == {
        "bert": [(2, 0, False)],
        "modernbert": [(2, 0, False), (2, 6, False)],
        "llama": [(2, 0, True)],
        "mistral": [(2, 9, True)],
    }
