"""A static model's folder run without a server: tokenized, through its graph, pooled."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from nestvec.backends.open import open_backend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.core.batch_runner import raw_vectors
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import FloatArray, Item, Layout, Truncation
from nestvec.export.architectures import ExportOptions, export_graph
from nestvec.model_store.folder.model_folder import ModelFolder, read_model_folder


def raw_vectors_of(path: Path, texts: Sequence[str], *, rounds_table: bool = False) -> FloatArray:
    """Return the vectors of texts, not normalized, (n, D)."""
    folder = read_model_folder(path)
    return vectors_of_ids(folder, path, all_ids(folder, texts), rounds_table=rounds_table)


def ids_of(folder: ModelFolder, text: str, truncate: Truncation = Truncation.ERROR) -> list[int]:
    """Return a text's ids."""
    return all_ids(folder, [text], truncate)[0]


def all_ids(
    folder: ModelFolder, texts: Sequence[str], truncate: Truncation = Truncation.ERROR
) -> list[list[int]]:
    """Return the ids of texts."""
    encoded = folder.open_tokenizer().encode_texts(texts, TokenizeOptions(truncate))
    return [each.ids.tolist() for each in encoded]


def vectors_of_ids(
    folder: ModelFolder,
    path: Path,
    ids: Sequence[Sequence[int]],
    *,
    rounds_table: bool = False,
) -> FloatArray:
    """Return the vectors of token ids, not normalized, (n, D)."""
    graph = path / "graph"
    graph.mkdir(exist_ok=True)
    options = ExportOptions(head=folder.head.graph_head(), rounds_table=rounds_table)
    export_graph(folder.path, folder.config, graph / "model.onnx", options)
    backend = open_backend(graph / "model.onnx", Layout.PACKED, BackendOptions(provider="cpu"))
    items = [Item(np.asarray(of_text, np.int32)) for of_text in ids]
    return raw_vectors(backend, items, folder.head.pooler(graph, open_backend))
