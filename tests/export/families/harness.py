"""Exports a family's tiny model and compares its states with those that transformers gave."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.core.collate import collate
from nestvec.engine.types import Layout
from nestvec.export.architectures import export_graph, export_padded_graph
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.export.families.weights import random_ids, random_weights
from tests.support.fakes import item

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Family:
    """One family's files.

    Attributes:
        inputs: Token ids of each input.
        expected: Last states of each, (n, H), float32, by transformers in float64.
    """

    name: str
    config: dict[str, Any]
    tensors: dict[str, NDArray[np.float32]]
    inputs: list[list[int]]
    expected: list[NDArray[np.float32]]

    def write(self, folder: Path, prefix: str = "") -> None:
        """The folder as Hugging Face has it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        save_file(
            {prefix + name: tensor for name, tensor in self.tensors.items()},
            folder / "model.safetensors",
        )

    def open(self, folder: Path, *, padded: bool = False, prefix: str = "") -> OnnxBackend:
        """Export it and open the graph."""
        self.write(folder, prefix)
        graph = folder / "model.onnx"
        (export_padded_graph if padded else export_graph)(folder, self.config, graph)
        return OnnxBackend(graph, Layout.PADDED if padded else Layout.PACKED, BackendOptions())


def all_families() -> list[str]:
    """Names of those that have files."""
    return sorted(path.stem for path in HERE.glob("*.json"))


def load(name: str) -> Family:
    """Make a family's weights and ids anew, and read what was expected of them."""
    stored = json.loads((HERE / f"{name}.json").read_text())
    config, lengths = stored["config"], stored["lengths"]
    states = np.load(HERE / f"{name}.npy")
    stops = np.cumsum(lengths)
    return Family(
        name,
        config,
        random_weights(stored["tensors"], stored["seed"]),
        random_ids(lengths, config["vocab_size"], stored["seed"]),
        [states[stop - n : stop] for n, stop in zip(lengths, stops, strict=True)],
    )


def states(backend: OnnxBackend, inputs: list[list[int]]) -> NDArray[np.float32]:
    """Of inputs that run together, (T, H)."""
    found = backend.run(collate([item(*ids) for ids in inputs], backend.layout)).hidden
    assert found is not None
    return found


def largest_error(family: Family, backend: OnnxBackend) -> float:
    """Over a mixed batch, each input alone, and batches of one length."""
    together = states(backend, family.inputs)
    worst = np.abs(together - np.concatenate(family.expected)).max()
    for ids, expected in zip(family.inputs, family.expected, strict=True):
        for copies in (1, 3):
            found = states(backend, [ids] * copies)
            worst = max(worst, np.abs(found - np.tile(expected, (copies, 1))).max())
    return float(worst)
