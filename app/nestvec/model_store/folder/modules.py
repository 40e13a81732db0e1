"""sentence-transformers' module chain (modules.json), and the head that it makes."""

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
    is_m3,
    is_stanford_colbert,
    read_m3,
    read_pylate,
    read_stanford_colbert,
)
from nestvec.model_store.heads.sparse import LOGARITHMS, SparseHead
from nestvec.system.json_files import load_json, read_json

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
MAX_PATH_CHARS: Final = 100  # systems take 255 bytes of a name


@dataclass(frozen=True, slots=True)
class Module:
    """One module of the chain.

    Attributes:
        kind: Name of its class, without the package.
        folder: Holds its settings and weights.
    """

    kind: str
    folder: Path


def read_modules(folder: Path) -> tuple[Module, ...]:
    """Read the chain of a folder; empty where it has no modules.json.

    Raises:
        FormatError: It cannot be read, or a path leaves the folder.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return ()
    try:
        entries = load_json(path.read_text("utf-8"))
        named = [
            (str(entry["type"]).rsplit(".", 1)[-1], str(entry.get("path") or ""))
            for entry in entries
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"{path}: not a module list ({error})") from error
    if any(len(name) > MAX_PATH_CHARS for _, name in named):
        raise FormatError(f"{path}: a module's path is too long to be one")
    modules = tuple(Module(kind, folder / name) for kind, name in named)
    kinds = [module.kind for module in modules]
    if unknown := [kind for kind in kinds if kind not in ORDER]:
        raise FormatError(f"{path}: module '{unknown[0]}' is not supported")
    ranks = [ORDER.index(kind) for kind in kinds]
    if ranks != sorted(ranks) or kinds[:1] not in ([], *([kind] for kind in TRANSFORMERS)):
        raise FormatError(f"{path}: expected {', '.join(ORDER)} in this order")
    for module in modules:
        try:
            resolved = module.folder.resolve()
        except (OSError, ValueError) as error:
            raise FormatError(f"{path}: a module's path is none") from error
        if module.kind in TRANSFORMERS and resolved != folder.resolve():
            raise FormatError(f"{path}: the Transformer module must lie in the folder itself")
        if not resolved.is_relative_to(folder.resolve()):
            raise FormatError(f"{path}: a module's path leaves the folder")
    return modules


def read_head(
    folder: Path,
    config: Mapping[str, Any],
    hidden_size: int,
    modules: Sequence[Module],
    *,
    pooling: str | None,
) -> Head:
    """Read the head that follows the encoder.

    Args:
        folder: The model's folder.
        config: Its config.json.
        hidden_size: Columns of the encoder's states, H.
        modules: Its module chain.
        pooling: Key of `pooling.POOLINGS`, or "splade"; None where neither folder nor card says.

    Raises:
        FormatError: A module that we would have to ignore, or settings that make no head: vectors would be wrong.
    """
    kinds = [module.kind for module in modules]
    if is_stanford_colbert(config):
        return read_stanford_colbert(folder, config, hidden_size)
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
    """Read the head of a model that gives a vector for each text."""
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
    """Return the folder of the one dense layer that token states go through.

    Raises:
        FormatError: There is another module beside it, or several dense layers.
    """
    layers = [module.folder for module in modules if module.kind == "Dense"]
    allowed = ("Dense", "Normalize", "MultiVectorMask")
    has_others = any(module.kind not in allowed for module in modules[1:])
    if len(layers) != 1 or has_others:
        raise FormatError(f"{path}: expected one Dense module behind the Transformer")
    dense_files(layers[0])
    return layers[0]


def _read_splade(
    folder: Path, config: Mapping[str, Any], hidden_size: int, modules: Sequence[Module]
) -> SparseHead:
    """Read a SPLADE head, and the weights of its queries where the folder has them."""
    settings: Mapping[str, Any] = {}
    for module in modules:
        if module.kind == "SpladePooling":
            settings = read_json(module.folder / "config.json")
        elif module.kind not in TRANSFORMERS:
            raise FormatError(f"{folder}/modules.json: module '{module.kind}' is not supported")
    merge = settings.get("pooling_strategy", "max")
    activation = settings.get("activation_function", "relu")
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
