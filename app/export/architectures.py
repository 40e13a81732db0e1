"""Which families the exporter knows: `model_type` of config.json to the function that builds its graph."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from app.export.bert import build_bert
from app.export.graph import GraphBuilder
from app.export.weights import Weights

Build = Callable[[Mapping[str, Any], Weights], GraphBuilder]

ARCHITECTURES: Final[Mapping[str, Build]] = {
    "bert": build_bert,
}

# Part of every fingerprint: raise it when an exported graph's vectors may change.
GRAPH_VERSION: Final = 2


def export_graph(folder: Path, config: Mapping[str, Any], path: Path) -> None:
    """Write a folder's packed graph.

    Args:
        folder: Holds the safetensors.
        config: Its config.json; `model_type` must be in `ARCHITECTURES`.
        path: Where the graph goes; its weights go beside it.

    Raises:
        FormatError: Configuration and weights do not fit.
        OSError: The disk is full or read-only.
    """
    with Weights(folder) as weights:
        ARCHITECTURES[config["model_type"]](config, weights).save(path)
