"""Which files of a Hub repository are fetched: those that reading the folder will ask for, never code."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nestvec.errors import SourceError
from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.graph.own_graph import ONNX_PATHS, OwnGraph
from nestvec.export.graph.weights import (
    INDEX_FILE,
    PICKLE_FILE,
    PICKLE_INDEX_FILE,
    SINGLE_FILE,
    shard_names,
)
from nestvec.model_store.sources.adapters import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    JINA_V5,
    OWN_ADAPTERS,
    adapter_alone,
)
from nestvec.model_store.sources.file_names import (
    CHAT_TEMPLATE_FILE,
    M3_LAYERS,
    MODEL_FILE,
    PREPROCESSOR_FILE,
    PROCESSOR_FILE,
    ROUTER_FILE,
    SETTINGS_FILES,
    TOKENIZER_FILES,
)
from nestvec.system.json_files import read_json

# What serving reads of a repository, weights apart.
SMALL_FILES: Final = (
    "config.json",
    "tokenizer.json",
    *TOKENIZER_FILES,
    CHAT_TEMPLATE_FILE,
    "modules.json",
    ROUTER_FILE,
    *SETTINGS_FILES,
    MODEL_FILE,
    INDEX_FILE,
    "artifact.metadata",  # ColBERT's own settings
    "idf.json",  # weights of terms for queries
    PREPROCESSOR_FILE,
    PROCESSOR_FILE,
)
# Folders of modules: `1_Pooling`, or `query_0_SparseStaticEmbedding` of a Router's route.
MODULE_FOLDER: Final = re.compile(r"\d[^/]*|\w+_\d+_\w+")
FIRST_MODULE: Final = re.compile(r"(\w+_)?0_")
# What of them a module's own folder may hold: the first versions of sentence-transformers put the encoder into one.
MODULE_FILES: Final = (
    *("config.json", "tokenizer.json"),
    *TOKENIZER_FILES,
    *SETTINGS_FILES,
    PREPROCESSOR_FILE,
    PROCESSOR_FILE,
    SINGLE_FILE,
)
# Of a model's own adapters, in a folder by task.
ADAPTER_FILE: Final = re.compile(
    rf"{OWN_ADAPTERS}/[\w.-]+/({re.escape(ADAPTER_CONFIG)}|{re.escape(ADAPTER_WEIGHTS)})"
)


def small_files(present: Sequence[str], *, reads_pickles: bool) -> list[str]:
    """Choose the files to download first: the settings, and the weights of small layers.

    Args:
        present: Names of all files of the repository.
        reads_pickles: Whether torch's own files may stand for safetensors that are not there.
    """
    names = {f for f in present if f in SMALL_FILES or _is_module_file(f, MODULE_FILES)}
    # BGE-M3's layers; those of modules behind the pooling.
    layers = [(f"{name}.safetensors", f"{name}.pt") for name in M3_LAYERS]
    layers += [
        (f.removesuffix(PICKLE_FILE) + SINGLE_FILE, f)
        for f in present
        if _is_module_file(f, (PICKLE_FILE,)) and not FIRST_MODULE.match(f)
    ]
    for safe, pickled in layers:
        if safe in present:
            names.add(safe)
        elif reads_pickles and pickled in present:
            names.add(pickled)
    if reads_pickles and INDEX_FILE not in present and PICKLE_INDEX_FILE in present:
        names.add(PICKLE_INDEX_FILE)
    return [f for f in present if f in names]


def large_files(
    name: str, folder: Path, present: Sequence[str], *, reads_pickles: bool
) -> list[str]:
    """Choose the large files to download.

    Args:
        name: The repository's.
        folder: Holds the repository's small files.
        present: Names of all its files.
        reads_pickles: Whether torch's own files may be chosen.

    Returns:
        The safetensors, where the exporter knows the family or there is no graph; else torch's own files, where it does
        and there is no graph, or none that gives what the model can; else the graph, and then the files that are named
        after it. Of a model that has vectors by its own adapters only, the safetensors and these.

    Raises:
        SourceError: There are none that are read.
        FormatError: The index of the weights is broken, or config.json is.
    """
    safetensors = _weights(folder, present, SINGLE_FILE, INDEX_FILE)
    if safetensors and (adapters := _own_adapters(folder, present)):
        return [*safetensors, *adapters]
    graph = next((path for path in ONNX_PATHS if path in present), None)
    if safetensors and (graph is None or _is_exported(folder)):
        return safetensors
    pickles = _weights(folder, present, PICKLE_FILE, PICKLE_INDEX_FILE) if reads_pickles else []
    if pickles and _is_exported(folder) and (graph is None or _has_m3_layers(present)):
        return pickles
    if graph is not None:
        return [graph, *(f for f in present if f.startswith(graph) and f != graph)]
    if ADAPTER_CONFIG in present:
        raise SourceError(adapter_alone(name))
    if PICKLE_FILE in present or PICKLE_INDEX_FILE in present:
        raise SourceError(
            f"{name} has neither safetensors nor an ONNX graph; {_why_no_pickle(reads_pickles)}"
        )
    raise SourceError(f"{name} has neither safetensors, {PICKLE_FILE} nor an ONNX graph")


def _why_no_pickle(reads_pickles: bool) -> str:  # noqa: FBT001 - the setting itself
    """Say why torch's own files do not do."""
    if not reads_pickles:
        return f"its {PICKLE_FILE} is not read, as read_pickles is off"
    return f"its {PICKLE_FILE} is not read, as config.json names no family that the exporter knows"


def _weights(folder: Path, present: Sequence[str], single: str, index: str) -> list[str]:
    """List a repository's files of weights of one kind."""
    if single in present:
        return [single]
    if index in present:
        # Names are untrusted, and patterns to the library: only those of files that are there count.
        shards = set(shard_names(folder / index))
        files = [f for f in present if f in shards and "/" not in f]
        if files:
            return files
    # A static model's table, or a transformer in a folder of its own, is the first module of the chain or a route.
    return [f for f in present if FIRST_MODULE.match(f) and f.endswith(f"/{single}")]


def _own_adapters(folder: Path, present: Sequence[str]) -> list[str]:
    """List the files of a repository's own adapters, which `task:NAME` merges; none where they lie in the weights."""
    path = folder / "config.json"
    if not path.is_file() or read_json(path).get("model_type") != JINA_V5:
        return []
    return [f for f in present if ADAPTER_FILE.fullmatch(f)]


def _has_m3_layers(present: Sequence[str]) -> bool:
    """Whether there are BGE-M3's layers, which need states that a graph of the repository's own does not give."""
    return all({f"{name}.safetensors", f"{name}.pt"} & set(present) for name in M3_LAYERS)


def _is_exported(folder: Path) -> bool:
    """Whether the exporter reads a folder's weights: static models have other types, or no config.json."""
    path = folder / "config.json"
    if not path.is_file():
        return True
    return architecture_of(read_json(path)) in (*ARCHITECTURES, "model2vec")


def external_files(graph: Path) -> set[str]:
    """Names in the repository of the files that hold a graph's weights."""
    prefix = f"{graph.parent.name}/" if graph.parent.name == "onnx" else ""
    return {f"{prefix}{name}" for name in OwnGraph.read(graph).external}


def _is_module_file(name: str, files: Sequence[str]) -> bool:
    """Whether a file belongs to a sentence-transformers module: settings, dense weights, or a whole encoder."""
    folder, _, file = name.partition("/")
    return MODULE_FOLDER.fullmatch(folder) is not None and file in files
