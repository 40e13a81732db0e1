"""Folders of static models that other libraries write: model2vec's, and sentence-transformers' StaticEmbedding."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.architectures import STATIC_TYPE
from nestvec.export.families.static import TABLES
from nestvec.export.graph.weights import SINGLE_FILE, Weights, weight_files
from nestvec.model_store.folder.module_classes import module_kind
from nestvec.system.json_files import load_json, read_json

MODEL2VEC: Final = "model2vec"
MODULE: Final = "StaticEmbedding"
# Neither library has a limit that a server could do with; model2vec cuts at 512 tokens unasked.
MAX_TOKENS: Final = 8192


@dataclass(frozen=True, slots=True)
class StaticFolder:
    """A static model, wherever in a folder it lies.

    Attributes:
        folder: Holds its tokenizer.json and safetensors.
        config: Stands for its config.json, as our own static models have it.
        overrides: Settings that hold for every such model, as in a card.
    """

    folder: Path
    config: Mapping[str, Any]
    overrides: Mapping[str, Any]


def find_static(folder: Path) -> StaticFolder | None:
    """Find a static model of another library in a folder; None for any other folder.

    Raises:
        FormatError: There is one, with parts that we would have to ignore.
    """
    module = _module(folder)
    config = folder / "config.json"
    is_model2vec = config.is_file() and read_json(config).get("model_type") == MODEL2VEC
    if module is None and not is_model2vec:
        return None
    path = module or folder
    files = weight_files(path, reads_pickles=False)
    if not files:
        raise FormatError(f"{path}: no {SINGLE_FILE}, which a static model needs")
    with Weights(path, files) as weights:
        tables = [name for name in TABLES if name in weights]
        if not tables:
            raise FormatError(f"{path}: no tensor {' or '.join(TABLES)}")
        for name in ("weights", "mapping"):
            if name in weights:
                raise FormatError(
                    f"{path}: tensor '{name}' (a quantised vocabulary) is not supported"
                )
        rows, width = weights.shape(tables[0])[:2]
    # sentence-transformers keeps unknown tokens, model2vec leaves them out.
    return StaticFolder(
        path,
        {"model_type": STATIC_TYPE, "vocab_size": rows, "hidden_size": width},
        {
            "pooling": "mean",
            "adds_special_tokens": False,
            "max_tokens": MAX_TOKENS,
            "drops_unknown": is_model2vec,
        },
    )


def _module(folder: Path) -> Path | None:
    """Return the folder of a StaticEmbedding module; None where the chain does not begin with one.

    Raises:
        FormatError: A module other than a normalization follows it, or a path leaves the folder.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return None
    try:
        entries = load_json(path.read_text("utf-8"))
        kinds = [module_kind(str(entry["type"])) or str(entry["type"]) for entry in entries]
        module = folder / str(entries[0].get("path") or "")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError):
        return None  # `read_modules` says what is wrong with it
    if kinds[0] != MODULE:
        return None
    if others := [kind for kind in kinds[1:] if kind not in ("Normalize", "Dropout")]:
        raise FormatError(f"{path}: module '{others[0]}' is not supported behind {MODULE}")
    if not module.resolve().is_relative_to(folder.resolve()):
        raise FormatError(f"{path}: a module's path leaves the folder")
    return module
