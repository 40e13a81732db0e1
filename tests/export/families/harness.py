"""Exports a family's tiny model and compares its states with those that transformers computed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import Layout
from nestvec.export.architectures import export_graph, export_padded_graph
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.export.families.weights import random_ids, random_weights
from tests.support.fakes import item

HERE = Path(__file__).parent
# Whose graphs are another family's with other numbers: the same builder without a feature of its own.
SAME_GRAPHS = frozenset(
    {
        *("bidirectional_pplx_qwen3", "camembert", "colpali", "ernie", "gemma", "llama_bidirec"),
        *("colmodernvbert", "jina_clip", "jina_clip~alibi"),
        *("llama~linear", "llama~llama3", "mt5", "qwen2~yarn", "xlm-roberta"),
    }
)


@dataclass(frozen=True)
class Family:
    """One family's tiny model and the states that it should give.

    Attributes:
        name: Name of its files.
        config: Content of its config.json.
        tensors: Its weights by name.
        inputs: Token ids of each input.
        expected: Last states of each input, [n, H], float32, computed by transformers in float64.
    """

    name: str
    config: dict[str, Any]
    tensors: dict[str, NDArray[np.float32]]
    inputs: list[list[int]]
    expected: list[NDArray[np.float32]]

    def write(self, folder: Path, prefix: str = "") -> None:
        """Write the model as a Hugging Face folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        save_file(
            {prefix + name: tensor for name, tensor in self.tensors.items()},
            folder / "model.safetensors",
        )

    def open(self, folder: Path, *, padded: bool = False, prefix: str = "") -> OnnxBackend:
        """Export the model and open its graph."""
        self.write(folder, prefix)
        graph = folder / "model.onnx"
        (export_padded_graph if padded else export_graph)(folder, self.config, graph)
        return OnnxBackend(graph, Layout.PADDED if padded else Layout.PACKED, BackendOptions())


def all_families() -> list[str]:
    """List the families, and variants of families, that have files."""
    return sorted(path.stem for path in HERE.glob("*.json"))


def distinct_families() -> list[str]:
    """List those whose graphs are not another's with other numbers."""
    return [name for name in all_families() if name not in SAME_GRAPHS]


def config_of(name: str) -> dict[str, Any]:
    """Return the content of a family's config.json."""
    config: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())["config"]
    return config


def load(name: str) -> Family:
    """Make a family's weights and ids from their seed, and read the states that are expected."""
    stored = json.loads((HERE / f"{name}.json").read_text())
    config, lengths = stored["config"], stored["lengths"]
    vocabulary = stored.get("vocabulary") or config.get("text_config", config)["vocab_size"]
    states = np.load(HERE / f"{name}.npy")
    stops = np.cumsum(lengths)
    return Family(
        name,
        config,
        random_weights(stored["tensors"], stored["seed"]),
        random_ids(lengths, vocabulary, stored["seed"]),
        [states[stop - n : stop] for n, stop in zip(lengths, stops, strict=True)],
    )


def states(backend: OnnxBackend, inputs: list[list[int]]) -> NDArray[np.float32]:
    """Return the states of inputs that run as one batch, [T, H]."""
    hidden = backend.run(collate([item(*ids) for ids in inputs], backend.info.layout)).hidden
    assert hidden is not None
    return hidden


def largest_error(family: Family, backend: OnnxBackend) -> float:
    """Return the largest difference to transformers over a mixed batch, each input alone, and batches of one length."""
    mixed = states(backend, family.inputs)
    worst = np.abs(mixed - np.concatenate(family.expected)).max()
    for ids, expected in zip(family.inputs, family.expected, strict=True):
        for copies in (1, 3):
            repeated = states(backend, [ids] * copies)
            worst = max(worst, np.abs(repeated - np.tile(expected, (copies, 1))).max())
    return float(worst)
