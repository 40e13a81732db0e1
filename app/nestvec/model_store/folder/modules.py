"""sentence-transformers' module chain (modules.json), and the head that it makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from nestvec.engine.types import OutputKind
from nestvec.errors import FormatError
from nestvec.export.architectures import architecture_of
from nestvec.model_store.folder.module_classes import is_library_class, module_kind, suits
from nestvec.model_store.folder.router import read_routes
from nestvec.model_store.folder.transformer_settings import find_transformer_settings
from nestvec.model_store.heads.autoencoder import read_autoencoder
from nestvec.model_store.heads.base import (
    FIRST_LAST,
    FirstLastHead,
    Head,
    check_layer_weights,
    read_model_settings,
)
from nestvec.model_store.heads.classifier import ClassifierHead, is_classifier
from nestvec.model_store.heads.dense import (
    TANH_QUANTIZER,
    DenseHead,
    check_names,
    dense_files,
    layer_files,
)
from nestvec.model_store.heads.late import (
    is_stanford_colbert,
    m3_files,
    read_m3,
    read_stanford_colbert,
)
from nestvec.model_store.heads.logit_score import (
    CAUSAL_LOGITS,
    LOGIT_SCORE,
    LogitScoreHead,
)
from nestvec.model_store.heads.multi_vector import MASK, VECTOR_MERGING, read_token_vectors
from nestvec.model_store.heads.sparse import LOGARITHMS, SparseHead
from nestvec.system.json_files import load_json, read_json

TRANSFORMERS: Final = ("Transformer", "MLMTransformer")
POOLINGS: Final = ("Pooling", "SpladePooling")
# What may stand behind, in any order; a chain's kind of model decides which.
LAYERS: Final = ("Dense", "LayerNorm", "Normalize", MASK, TANH_QUANTIZER)
ORDER: Final = "a Transformer, a pooling, and layers, in this order"
ROUTER: Final = "Router"
# Weighs queries by stored weights, where a Router sends them there; then it stands behind the chain of documents.
QUERY_WEIGHTS: Final = "SparseStaticEmbedding"
# Between the Transformer and its pooling, where config.json asks for the states of all layers; else it does nothing.
LAYER_POOLING: Final = "WeightedLayerPooling"
HIDDEN_STATES: Final = "output_hidden_states"
AUTOENCODER: Final = "SparseAutoEncoder"  # at the end
KNOWN: Final = (
    *(*TRANSFORMERS, LAYER_POOLING, *POOLINGS, *LAYERS),
    *(AUTOENCODER, VECTOR_MERGING),
)
# Where kinds stand in a chain, others behind them; of some places a chain has one module.
PLACES: Final = (
    TRANSFORMERS,
    (LAYER_POOLING,),
    POOLINGS,
    LAYERS,
    (AUTOENCODER, QUERY_WEIGHTS, VECTOR_MERGING),
)
SINGLE_RANKS: Final = (0, 1, 4)
NOTHING: Final = "Dropout"  # it does something in training only
SPLADE: Final = "splade"
MAX_PATH_CHARS: Final = 100  # systems take 255 bytes of a name


@dataclass(frozen=True, slots=True)
class Module:
    """One module of the chain.

    Attributes:
        kind: Name of its class, without the package.
        folder: Holds its settings and weights.
        class_name: Name of its class, with the package; "" where a card answers for it.
        is_default: Whether it is for texts that are said to be neither queries nor documents, though it is for queries.
    """

    kind: str
    folder: Path
    class_name: str = ""
    is_default: bool = False


def read_modules(folder: Path, *, is_plain: bool = False) -> tuple[Module, ...]:
    """Read the chain of a folder, without modules that do nothing; empty where it has no modules.json.

    Args:
        folder: The model's folder.
        is_plain: Whether a card says that classes of the model's own compute what those of the library do.

    Raises:
        FormatError: It cannot be read, a class is not known, or a path leaves the folder.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return ()
    try:
        entries = load_json(path.read_text("utf-8"))
        named = [(str(entry["type"]), str(entry.get("path") or "")) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"{path}: not a module list ({error})") from error
    _check_lengths(path, named)
    queries: list[Module] = []
    if named and module_kind(named[0][0], is_plain=is_plain) == ROUTER:
        named, queries = _routed(path, *named, is_plain=is_plain)
    modules = _as_modules(path, named, is_plain=is_plain)
    _check_chain(path, [*modules, *queries])
    return (*modules, *queries)


def _check_lengths(path: Path, named: Sequence[tuple[str, str]]) -> None:
    if any(len(name) > MAX_PATH_CHARS for _, name in named):
        raise FormatError(f"{path}: a module's path is too long to be one")


def _as_modules(
    path: Path, named: Sequence[tuple[str, str]], *, is_plain: bool, more: Sequence[str] = ()
) -> list[Module]:
    """Make modules of classes and paths, but for those that do nothing.

    Args:
        path: The file that names them.
        named: Class and path of each, the path relative to the file's folder.
        is_plain: As `read_modules` takes it.
        more: Further kinds that are known here.

    Raises:
        FormatError: A class is not known.
    """
    modules = []
    for class_name, name in named:
        kind = module_kind(class_name, is_plain=is_plain)
        if kind not in (*KNOWN, LOGIT_SCORE, *more, NOTHING):
            raise FormatError(f"{path}: type: {_unknown(class_name)}")
        if kind != NOTHING:
            modules.append(Module(kind, path.parent / name, "" if is_plain else class_name))
    return modules


def _routed(
    path: Path, router: tuple[str, str], *behind: tuple[str, str], is_plain: bool
) -> tuple[list[tuple[str, str]], list[Module]]:
    """Return the chain of documents, in a chain that begins with a Router, and what queries go through instead.

    Args:
        path: The modules.json.
        router: Class and path of the Router.
        behind: Of the modules that follow it.
        is_plain: As `read_modules` takes it.

    Raises:
        FormatError: Queries have an encoder of their own: two models would have to run behind one name.
    """
    routes = read_routes(path.parent / router[1])
    prefix = f"{router[1].rstrip('/')}/" if router[1] else ""
    documents = [*((kind, prefix + name) for kind, name in routes.document), *behind]
    _check_lengths(path, documents)
    if routes.is_shared:
        return documents, []
    named = [(kind, prefix + name) for kind, name in routes.query]
    _check_lengths(path, named)
    queries = _as_modules(path, named, is_plain=is_plain, more=[QUERY_WEIGHTS, "StaticEmbedding"])
    if [module.kind for module in queries] != [QUERY_WEIGHTS]:
        kinds = ", ".join(module.kind for module in queries)
        raise FormatError(
            f"{path}: Router: queries have a chain of their own ({kinds}); only {QUERY_WEIGHTS} is served beside "
            "documents: serve copies of the two chains as two models"
        )
    return documents, [replace(queries[0], is_default=routes.is_query_default)]


def _unknown(class_name: str) -> str:
    """Say that a module's class is not supported, and the way out."""
    kind = class_name.rsplit(".", 1)[-1]
    if kind in (ROUTER, "Asym", QUERY_WEIGHTS):
        return f"module '{kind}' is not supported here, only a {ROUTER} that begins a chain and what it holds"
    if is_library_class(class_name) or kind not in KNOWN:
        return f"module '{kind}' is not supported"
    return (
        f"'{class_name}' is code of the model's own, which is never run; if it computes what "
        f'sentence-transformers\' {kind} does, a card with overrides.code = "plain" says so'
    )


def _check_chain(path: Path, modules: Sequence[Module]) -> None:
    """Check the order of a chain, and that its paths lie in the folder.

    Raises:
        FormatError: They do not.
    """
    ranks = [_rank(module.kind) for module in modules]
    singles = [rank for rank in ranks if rank in SINGLE_RANKS]
    if ranks != sorted(ranks) or ranks[:1] not in ([], [0]) or len(singles) > len(set(singles)):
        raise FormatError(f"{path}: expected {ORDER}")
    for module in modules:
        try:
            is_inside = module.folder.resolve().is_relative_to(path.parent.resolve())
        except (OSError, ValueError) as error:
            raise FormatError(f"{path}: a module's path is none") from error
        if not is_inside and module.kind in TRANSFORMERS:
            raise FormatError(f"{path}: the Transformer module must lie in the folder itself")
        if not is_inside:
            raise FormatError(f"{path}: a module's path leaves the folder")


def _rank(kind: str) -> int:
    """Where a module stands in a chain: kinds of a rank may stand in any order."""
    return next((rank for rank, kinds in enumerate(PLACES) if kind in kinds), len(PLACES))


def encoder_folder(folder: Path, modules: Sequence[Module]) -> Path:
    """Return where the encoder lies: the folder itself, or `0_Transformer/` as the library's first versions had it."""
    if not modules or modules[0].folder.resolve() == folder.resolve():
        return folder
    return modules[0].folder


def read_head(  # noqa: PLR0913 - what files and card say, each read elsewhere
    folder: Path,
    config: Mapping[str, Any],
    hidden_size: int,
    modules: Sequence[Module],
    *,
    pooling: str | None,
    root: Path | None = None,
    reads_pickles: bool = True,
) -> Head:
    """Read the head that follows the encoder.

    Args:
        folder: The encoder's folder.
        config: Its config.json.
        hidden_size: Columns of the encoder's states, H.
        modules: The model's module chain.
        pooling: Key of `pooling.POOLINGS`, several with `pooling.JOINT` between them, or "splade"; None where neither
            folder nor card says.
        root: The model's folder, where that is not the encoder's.
        reads_pickles: Whether layers in torch's own format are read.

    Raises:
        FormatError: A module that we would have to ignore, or settings that make no head: vectors would be wrong.
    """
    kinds = [module.kind for module in modules]
    chain = (root or folder) / "modules.json"
    for module in modules:
        if not suits(module.class_name, architecture_of(config)):
            raise FormatError(f"{chain}: type: {_unknown(module.class_name)}")
    if is_stanford_colbert(config) and VECTOR_MERGING not in kinds:
        return read_stanford_colbert(folder, config, hidden_size)
    if QUERY_WEIGHTS in kinds and "SpladePooling" not in kinds:
        raise FormatError(f"{chain}: {QUERY_WEIGHTS} for queries needs SpladePooling for documents")
    if pooling == SPLADE or "SpladePooling" in kinds:
        return _read_splade(folder, config, hidden_size, modules, chain)
    if LOGIT_SCORE in kinds:
        return _read_logit_score(folder, config, hidden_size, modules, chain)
    # sentence-transformers 5.4 and newer write a chain of one Transformer for a cross-encoder, older ones no chain.
    if pooling is None and set(kinds) <= set(TRANSFORMERS) and is_classifier(config):
        values = read_model_settings(root or folder) if modules else {}
        return ClassifierHead.read(folder, config, hidden_size, values)
    if "Dense" in kinds and "Pooling" not in kinds:
        steps = [(module.kind, module.folder) for module in modules]
        found = find_transformer_settings(folder)
        transformer = found.path, found.values
        return read_token_vectors(folder, config, hidden_size, chain, steps, transformer)
    weights = _layer_weights(config, modules)
    files = () if weights is None else dense_files(weights)
    base = Head(folder, config, hidden_size, pooling or "", layer_weights=weights, files=files)
    return _read_pooled(base, modules, chain, m3_files(folder, reads_pickles=reads_pickles))


def _read_logit_score(
    folder: Path,
    config: Mapping[str, Any],
    hidden_size: int,
    modules: Sequence[Module],
    chain: Path,
) -> LogitScoreHead:
    """Read the head of a causal model that answers yes or no."""
    if [module.kind for module in modules] != ["Transformer", LOGIT_SCORE]:
        raise FormatError(f"{chain}: expected a Transformer, then {LOGIT_SCORE} alone")
    path = modules[1].folder / "config.json"
    tokens = read_json(path)
    if tokens.get("module_input_name", CAUSAL_LOGITS) != CAUSAL_LOGITS:
        raise FormatError(f"{path}: module_input_name: only '{CAUSAL_LOGITS}' is supported")
    return LogitScoreHead.read(
        folder, config, hidden_size, tokens, read_model_settings(chain.parent)
    )


def _layer_weights(config: Mapping[str, Any], modules: Sequence[Module]) -> Path | None:
    """Return the folder of a WeightedLayerPooling; None where it does nothing, as config.json asks for one layer."""
    if config.get(HIDDEN_STATES) is not True:
        return None
    folder = next((module.folder for module in modules if module.kind == LAYER_POOLING), None)
    layers = config.get("num_hidden_layers")
    if folder is not None and isinstance(layers, int):
        check_layer_weights(folder, layers)
    return folder


def _read_pooled(
    base: Head, modules: Sequence[Module], chain: Path, m3_layers: tuple[Path, ...]
) -> Head:
    """Read the head of a model that gives a vector for each text.

    Args:
        base: The plain head of this encoder; its pooling is "" where nothing says one.
        modules: The module chain.
        chain: The file that has it.
        m3_layers: The files of BGE-M3's further layers; none where the folder has not both.
    """
    kinds = [module.kind for module in modules]
    if kinds.count("Pooling") > 1 or {MASK, VECTOR_MERGING} & set(kinds):
        raise FormatError(f"{chain}: expected one Pooling module, and vectors of texts")
    if not base.pooling:
        named = chain if modules else f"{base.folder}/1_Pooling/config.json"
        raise FormatError(
            f"{named}: missing Pooling, so the pooling is unknown; add it, or write a card with overrides.pooling"
        )
    layers = [module for module in modules if module.kind in LAYERS]
    while layers and layers[-1].kind == "Normalize" and AUTOENCODER not in kinds:
        layers.pop()  # a request's answer is scaled at the end, or not, as it says
    for module in modules:
        if module.kind in LAYERS:
            check_names(module.folder)
    settings = base.folder, base.config, base.hidden_size
    further = [*layers, *(each for each in modules if each.kind in (LAYER_POOLING, AUTOENCODER))]
    if further and (base.pooling == FIRST_LAST or m3_layers):
        raise FormatError(
            f"{chain}: {further[0].kind} goes neither with {FIRST_LAST} nor with BGE-M3"
        )
    if base.pooling == FIRST_LAST:
        return FirstLastHead(*settings, "mean")
    if m3_layers:
        return read_m3(*settings, base.pooling, m3_layers)
    steps = tuple((module.kind, module.folder) for module in layers)
    files = (*base.files, *(file for step in steps for file in layer_files(*step)))
    dense = DenseHead(
        *settings, base.pooling, layer_weights=base.layer_weights, files=files, steps=steps
    )
    if AUTOENCODER in kinds:
        return read_autoencoder(dense, modules[-1].folder)
    return dense if layers else base


def _read_splade(
    folder: Path,
    config: Mapping[str, Any],
    hidden_size: int,
    modules: Sequence[Module],
    chain: Path,
) -> SparseHead:
    """Read a SPLADE head, and the weights of its queries where the folder has them."""
    settings: Mapping[str, Any] = {}
    queries: Module | None = None
    for module in modules:
        if module.kind == "SpladePooling":
            settings = read_json(module.folder / "config.json")
        elif module.kind == QUERY_WEIGHTS:
            queries = module
        elif module.kind not in TRANSFORMERS:
            raise FormatError(f"{chain}: module '{module.kind}' is not supported here")
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
    head = SparseHead(
        folder,
        config,
        hidden_size,
        "mean",
        kinds=(OutputKind.SPARSE,),
        merge=merge,
        logarithms=LOGARITHMS[activation],
    )
    if queries is not None:
        return head.with_query_table(queries.folder, is_default=queries.is_default)
    weights = folder / "idf.json"
    return head.with_query_file(weights) if weights.is_file() else head
