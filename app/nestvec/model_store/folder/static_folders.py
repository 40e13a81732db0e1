"""Folders of static models that other libraries write: model2vec's, and sentence-transformers' StaticEmbedding."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.architectures import STATIC_TYPE
from nestvec.export.families.static import TABLES
from nestvec.export.graph.weights import Weights
from nestvec.model_store.json_files import read_json
from nestvec.system.json_text import load_json

MODEL2VEC: Final = "model2vec"
MODULE: Final = "StaticEmbedding"
# Neither library has a limit that a server could do with; model2vec cuts at 512 tokens unasked.
MAX_TOKENS: Final = 8192


@dataclass(frozen=True, slots=True)
class StaticFolder:
    """A static model, wherever in a folder it lies.

    Attributes:
        folder: Holds its tokenizer.json and safetensors.
        config: As for our own static models.
        overrides: What is so of every such model.
    """

    folder: Path
    config: Mapping[str, Any]
    overrides: Mapping[str, Any]


def find_static(folder: Path) -> StaticFolder | None:
    """A static model of another library's; None for any other folder.

    Raises:
        FormatError: It is one, with parts that we would have to ignore.
    """
    where = _module(folder)
    config = folder / "config.json"
    is_model2vec = config.is_file() and read_json(config).get("model_type") == MODEL2VEC
    if where is None and not is_model2vec:
        return None
    own = where or folder
    with Weights(own) as weights:
        known = [name for name in TABLES if name in weights]
        if not known:
            raise FormatError(f"{own}: no tensor {' or '.join(TABLES)}")
        for name in ("weights", "mapping"):
            if name in weights:
                raise FormatError(
                    f"{own}: tensor '{name}' (a quantised vocabulary) is not supported"
                )
        rows, width = weights.shape(known[0])[:2]
    # sentence-transformers keeps unknown tokens, model2vec leaves them out.
    return StaticFolder(
        own,
        {"model_type": STATIC_TYPE, "vocab_size": rows, "hidden_size": width},
        {
            "pooling": "mean",
            "adds_special_tokens": False,
            "max_tokens": MAX_TOKENS,
            "drops_unknown": is_model2vec,
        },
    )


def _module(folder: Path) -> Path | None:
    """Folder of a StaticEmbedding module, where the chain begins with one.

    Raises:
        FormatError: Something other than a normalisation stands behind it, or a path leaves the folder.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return None
    try:
        listed = load_json(path.read_text("utf-8"))
        kinds = [str(one["type"]).rsplit(".", 1)[-1] for one in listed]
        where = folder / str(listed[0].get("path") or "")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError):
        return None  # whoever reads the chain says what is wrong with it
    if kinds[0] != MODULE:
        return None
    if strange := [kind for kind in kinds[1:] if kind != "Normalize"]:
        raise FormatError(f"{path}: module '{strange[0]}' is not supported behind {MODULE}")
    if not where.resolve().is_relative_to(folder.resolve()):
        raise FormatError(f"{path}: a module's path leaves the folder")
    return where
