"""sentence-transformers' module chain: which head a folder has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nestvec.engine.types import OutputKind
from nestvec.errors import FormatError
from nestvec.model_store.heads.base import FIRST_LAST, FirstLastHead, Head
from nestvec.model_store.heads.classifier import ClassifierHead, is_classifier
from nestvec.model_store.heads.dense import DenseHead, dense_files
from nestvec.model_store.heads.late import (
    is_authors_colbert,
    is_m3,
    read_authors_colbert,
    read_m3,
    read_pylate,
)
from nestvec.model_store.heads.sparse import LOGARITHMS, SparseHead
from nestvec.model_store.json_files import read_json
from nestvec.system.json_text import load_json

TRANSFORMERS: Final = ("Transformer", "MLMTransformer")
# The order in which a chain may have them.
ORDER: Final = (
    *TRANSFORMERS,
    "Pooling",
    "SpladePooling",
    "Dense",
    "Normalize",
    "MultiVectorMask",
)
SPLADE: Final = "splade"
MOST_PATH_CHARS: Final = 100  # systems take 255 bytes of a name


@dataclass(frozen=True, slots=True)
class Module:
    """One link of the chain: the class's last name and its folder."""

    kind: str
    folder: Path


def read_modules(folder: Path) -> tuple[Module, ...]:
    """The chain of a folder; none where it has none.

    Raises:
        FormatError: It cannot be read, or a path leaves the folder.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return ()
    try:
        listed = load_json(path.read_text("utf-8"))
        named = [(str(m["type"]).rsplit(".", 1)[-1], str(m.get("path") or "")) for m in listed]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"{path}: not a module list ({error})") from error
    if any(len(where) > MOST_PATH_CHARS for _, where in named):
        raise FormatError(f"{path}: a module's path is too long to be one")
    found = tuple(Module(kind, folder / where) for kind, where in named)
    kinds = [module.kind for module in found]
    if strange := [kind for kind in kinds if kind not in ORDER]:
        raise FormatError(f"{path}: module '{strange[0]}' is not supported")
    places = [ORDER.index(kind) for kind in kinds]
    if places != sorted(places) or kinds[:1] not in ([], *([kind] for kind in TRANSFORMERS)):
        raise FormatError(f"{path}: expected {', '.join(ORDER)} in this order")
    for module in found:
        try:
            place = module.folder.resolve()
        except (OSError, ValueError) as error:
            raise FormatError(f"{path}: a module's path is none") from error
        if module.kind in TRANSFORMERS and place != folder.resolve():
            raise FormatError(f"{path}: the Transformer module must lie in the folder itself")
        if not place.is_relative_to(folder.resolve()):
            raise FormatError(f"{path}: a module's path leaves the folder")
    return found


def read_head(
    folder: Path,
    config: Mapping[str, Any],
    hidden_size: int,
    modules: Sequence[Module],
    *,
    pooling: str | None,
) -> Head:
    """What stands behind the encoder.

    Args:
        folder: The model's.
        config: Its config.json.
        hidden_size: Of its states.
        modules: Its chain.
        pooling: Key of `pooling.POOLINGS`, or "splade"; None where neither folder nor card says.

    Raises:
        FormatError: A module that we would have to ignore, or settings that make no head: vectors would be wrong.
    """
    kinds = [module.kind for module in modules]
    if is_authors_colbert(config):
        return read_authors_colbert(folder, config, hidden_size)
    if pooling == SPLADE or "SpladePooling" in kinds:
        return _read_splade(folder, config, hidden_size, modules)
    if not modules and pooling is None and is_classifier(config):
        return ClassifierHead.read(folder, config, hidden_size)
    if "Dense" in kinds and "Pooling" not in kinds:
        module = _only_projection(folder / "modules.json", modules)
        return read_pylate(folder, config, hidden_size, module)
    return _read_pooled(folder, config, hidden_size, modules, pooling)


def _read_pooled(
    folder: Path,
    config: Mapping[str, Any],
    hidden_size: int,
    modules: Sequence[Module],
    pooling: str | None,
) -> Head:
    """Of a model that gives a vector for each text."""
    kinds = [module.kind for module in modules]
    if kinds.count("Pooling") > 1 or "MultiVectorMask" in kinds:
        raise FormatError(
            f"{folder}/modules.json: expected one Pooling module, and vectors of texts"
        )
    if pooling == FIRST_LAST:
        if "Dense" in kinds:
            raise FormatError(f"{folder}/modules.json: Dense does not go with {FIRST_LAST}")
        return FirstLastHead(folder, config, hidden_size, "mean")
    if pooling is None:
        raise FormatError(
            f"{folder}/1_Pooling/config.json: missing, so the pooling is unknown; add it, or write a card with "
            "overrides.pooling"
        )
    if is_m3(folder):
        return read_m3(folder, config, hidden_size, pooling)
    layers = tuple(module.folder for module in modules if module.kind == "Dense")
    if layers:
        files = tuple(file for layer in layers for file in dense_files(layer))
        return DenseHead(folder, config, hidden_size, pooling, files=files, modules=layers)
    return Head(folder, config, hidden_size, pooling)


def _only_projection(path: Path, modules: Sequence[Module]) -> Path:
    """Folder of the one dense layer that token states go through.

    Raises:
        FormatError: There is something else beside it.
    """
    layers = [module.folder for module in modules if module.kind == "Dense"]
    strange = [
        m.kind for m in modules[1:] if m.kind not in ("Dense", "Normalize", "MultiVectorMask")
    ]
    if len(layers) != 1 or strange:
        raise FormatError(f"{path}: expected one Dense module behind the Transformer")
    dense_files(layers[0])
    return layers[0]


def _read_splade(
    folder: Path, config: Mapping[str, Any], hidden_size: int, modules: Sequence[Module]
) -> SparseHead:
    said: Mapping[str, Any] = {}
    for module in modules:
        if module.kind == "SpladePooling":
            said = read_json(module.folder / "config.json")
        elif module.kind not in TRANSFORMERS:
            raise FormatError(f"{folder}/modules.json: module '{module.kind}' is not supported")
    merge, activation = said.get("pooling_strategy", "max"), said.get("activation_function", "relu")
    if (
        merge not in ("max", "sum")
        or not isinstance(activation, str)
        or activation not in LOGARITHMS
    ):
        raise FormatError(
            f"{folder}: SpladePooling takes 'max' or 'sum' and {', '.join(map(str, LOGARITHMS))}"
        )
    weights = folder / "idf.json"
    has_weights = weights.is_file()
    return SparseHead(
        folder,
        config,
        hidden_size,
        "mean",
        kinds=(OutputKind.SPARSE,),
        prompts={"query": "", "document": ""} if has_weights else {},
        merge=merge,
        logarithms=LOGARITHMS[activation],
        query_weights=weights if has_weights else None,
        files=(weights,) if has_weights else (),
    )
