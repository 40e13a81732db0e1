"""Models, graphs and reference vectors on disk: each is made once, by whichever process wants it first."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from nestvec import export
from nestvec.engine.backend import BackendFactory, BackendOptions
from nestvec.engine.types import Item, Layout
from nestvec.engine.vectors.pooler import Pooler
from nestvec.export.architectures import export_graph
from nestvec.export.device_graph import DeviceExportOptions, export_device_graph
from nestvec.export.graph.builder import FloatType
from nestvec.export.graph.inputs import DeviceAttention
from nestvec.tools.tuning.workload import typical_items
from numpy.typing import NDArray

from benchmarks import models
from benchmarks.gpu import parts
from benchmarks.models import VOCABULARY, Sizes, write_model

# Cores that are left to the process that measures, while another makes references.
SPARE_CORES: Final = 4


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph of a model for a GPU.

    Attributes:
        float_type: Type of its weights and states.
        attention: Which operator computes attention.
    """

    float_type: FloatType = FloatType.FP16
    attention: DeviceAttention = DeviceAttention.PACKED

    @property
    def label(self) -> str:
        """Its name in reports."""
        return f"{self.float_type}, {self.attention}"


def graphs_of(sizes: Sizes) -> list[Graph]:
    """Return the graphs of a model that are compared, the one that serves first."""
    if sizes.family in ("bert", "deberta-v2"):
        return [Graph()]
    paged = DeviceAttention.PAGED
    return [Graph(attention=paged), Graph(), Graph(FloatType.BF16, paged)]


def pooler_of(sizes: Sizes) -> Pooler:
    """Return the pooler of a model."""
    return Pooler("last_token" if sizes.pooling == "lasttoken" else "mean")


def sources_hash(*paths: Path) -> str:
    """Return a name for the text of files and of all Python files in folders: what they made is made anew with it."""
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) or [path])]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12]


@cache
def _graphs_hash() -> str:
    return sources_hash(Path(models.__file__), Path(export.__file__).parent)


@dataclass(frozen=True, slots=True)
class Workshop:
    """Makes what is measured.

    Attributes:
        work: Folder for all of it; kept between runs.
        open_backend: Opens graphs.
        texts: Number of texts for parity.
    """

    work: Path
    open_backend: BackendFactory
    texts: int = 100

    def folder(self, sizes: Sizes) -> Path:
        """Return the model's folder."""
        target = self.work / f"{sizes.name}-{sources_hash(Path(models.__file__))}"
        return self._made(target, lambda folder: write_model(sizes, folder / "model")) / "model"

    def graph(self, sizes: Sizes, graph: Graph) -> Path:
        """Return the file of a graph for a GPU.

        Raises:
            FormatError: The family has no such graph.
        """
        options = DeviceExportOptions(
            graph.float_type, graph.attention, pooling=pooler_of(sizes).pooling
        )
        folder = self.folder(sizes)
        config = json.loads((folder / "config.json").read_text())

        def export(target: Path) -> None:
            export_device_graph(folder, config, target / "model.onnx", options)

        target = self.work / f"{sizes.name}-{graph.float_type}-{graph.attention}-{_graphs_hash()}"
        return self._made(target, export) / "model.onnx"

    def parity_items(self, sizes: Sizes) -> list[Item]:
        """Return the inputs whose vectors are compared."""
        items = typical_items(
            self.texts * 200, sizes.max_tokens, VOCABULARY, seed=2, longest=parts.LONGEST_TOKENS
        )
        return items[: self.texts]

    def reference(self, sizes: Sizes) -> NDArray[np.float32]:
        """Return the vectors of the fp32 graph on the CPU of `parity_items`, each run alone, (n, D), float32."""
        folder = self.folder(sizes)
        config = json.loads((folder / "config.json").read_text())

        def compute(target: Path) -> None:
            export_graph(folder, config, target / "model.onnx")
            threads = max(1, (os.cpu_count() or 1) - SPARE_CORES)
            options = BackendOptions(provider="cpu", intra_op_threads=threads)
            cpu = self.open_backend(target / "model.onnx", Layout.PACKED, options)
            try:
                items = self.parity_items(sizes)
                vectors = parts.unit_vectors(cpu, pooler_of(sizes), [[item] for item in items])
            finally:
                cpu.close()
            np.save(target / "vectors.npy", vectors)

        target = self.work / f"{sizes.name}-cpu-{self.texts}-{_graphs_hash()}"
        vectors: NDArray[np.float32] = np.load(self._made(target, compute) / "vectors.npy")
        return vectors

    def prepare(self, wanted: Sequence[Sizes], without_reference: Sequence[Sizes]) -> None:
        """Make everything that models need, in order, while another process measures."""
        for sizes in (*wanted, *without_reference):
            for graph in graphs_of(sizes):
                self.graph(sizes, graph)
            if sizes in wanted:
                self.reference(sizes)

    def _made(self, target: Path, make: Callable[[Path], object]) -> Path:
        """Return a folder, made now unless it exists; it appears whole or not at all."""
        with self._locked(target.name):
            if not target.is_dir():
                unfinished = target.with_name(f"{target.name}.unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
                make(unfinished)
                unfinished.rename(target)
        return target

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Wait for whoever makes the same."""
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
