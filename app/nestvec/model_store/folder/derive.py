"""What a model folder's own files say: pooling, normalisation, lengths, prompts. Derived or refused, never guessed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nestvec.engine.instructions import Instruct
from nestvec.engine.types import Layout
from nestvec.errors import FormatError
from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.graph.weights import weight_files
from nestvec.model_store.folder.modules import SPLADE, Module, read_head, read_modules
from nestvec.model_store.folder.static_folders import find_static
from nestvec.model_store.heads.base import FIRST_LAST, Head
from nestvec.model_store.json_files import read_json

# Other forms of a tokenizer, which transformers converts.
OTHER_TOKENIZERS: Final = (
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model"),
    *("vocab.txt", "vocab.json"),
)
ONNX_PATHS: Final = ("onnx/model.onnx", "model.onnx")

# Both spellings of sentence-transformers' pooling config to our names.
POOLING_NAMES: Final[Mapping[str, str]] = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}
POOLING_FLAGS: Final[Mapping[str, str]] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last_token",
}


@dataclass(frozen=True, slots=True)
class Derived:
    """A folder, understood.

    Attributes:
        layout: PACKED where the exporter knows the architecture, PADDED where `onnx_file` is served as it is.
        onnx_file: The folder's own graph, relative; None where we export.
        weights: Files whose content decides the vectors.
        head: What stands behind the encoder.
        hidden_size: Of its states.
    """

    folder: Path
    config: Mapping[str, Any]
    architecture: str
    layout: Layout
    onnx_file: str | None
    weights: tuple[Path, ...]
    head: Head
    hidden_size: int
    vocabulary_size: int
    max_tokens: int
    pooling: str
    is_normalized: bool
    pools_prompt: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    adds_special_tokens: bool = True
    drops_unknown: bool = False
    instruct: Instruct | None = None
    echo: tuple[str, str] | None = None

    def graph(self, artefact: Path) -> Path:
        """The ONNX file to serve: the folder's own, or the one in the artefact's folder."""
        return self.folder / self.onnx_file if self.onnx_file else artefact / GRAPH


def derive(
    folder: Path,
    overrides: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Derived:
    """Read a folder in Hugging Face / sentence-transformers layout.

    Args:
        folder: Holds config.json, tokenizer.json and safetensors or an ONNX graph.
        overrides: From a model card: pooling, normalize, max_tokens, prompts, adds_special_tokens.
        config: From a model card: stands for a config.json that the folder lacks.

    Raises:
        FormatError: A file is missing or corrupt, something cannot be derived, or a module is not supported;
            names the file and the field.
    """
    over = dict(overrides or {})
    static = find_static(folder)
    if static is not None:
        folder, config, over = static.folder, static.config, {**static.overrides, **over}
    path = folder / "config.json"
    config = dict(config) if config and (static or not path.is_file()) else read_json(path)
    if not (folder / "tokenizer.json").is_file():
        raise FormatError(_without_tokenizer(folder))
    _text(config, "model_type", folder)
    architecture = architecture_of(config)
    onnx_file, layout, weights = _choose_graph(folder, architecture)
    sizes = _dimensions(folder, config, architecture, is_exported=onnx_file is None)
    modules = () if static is not None else read_modules(folder)
    pooling, pools_prompt = _pooling(folder, modules, over)
    head = read_head(folder, config, sizes.hidden_size, modules, pooling=pooling)
    if onnx_file is not None and type(head) is not Head:
        raise FormatError(
            f"{folder}: what stands behind its encoder needs an architecture that the exporter knows, not {onnx_file}"
        )
    prompts, default_prompt = _prompts(folder, over)
    prompts = {**head.prompts, **prompts}
    return Derived(
        folder=folder,
        config=config,
        architecture=architecture,
        layout=layout,
        onnx_file=onnx_file,
        weights=(*weights, *head.files),
        head=head,
        hidden_size=sizes.hidden_size,
        vocabulary_size=sizes.vocab_size,
        max_tokens=_max_tokens(folder, sizes, over),
        pooling=head.pooling,
        # Clients of an embeddings API expect unit vectors (api-contract 0.2), so a chain without Normalize is
        # served as unit vectors too, unless its card says otherwise; `normalize: false` gives raw ones.
        is_normalized=bool(over.get("normalize", True)),
        pools_prompt=pools_prompt,
        prompts=prompts,
        default_prompt=default_prompt,
        adds_special_tokens=bool(over.get("adds_special_tokens", True)),
        drops_unknown=bool(over.get("drops_unknown", False)),
        instruct=Instruct(**over["instruct"]) if "instruct" in over else None,
        echo=(over["echo"][0], over["echo"][1]) if "echo" in over else None,
    )


def _without_tokenizer(folder: Path) -> str:
    """What is wrong with a folder without tokenizer.json, and the way out where another form is there."""
    found = [name for name in OTHER_TOKENIZERS if (folder / name).is_file()]
    said = f"{folder}: tokenizer.json is missing"
    if not found:
        return said
    return (
        f"{said}, and {found[0]} is not read; in a venv with transformers (and sentencepiece) write it by "
        f'`AutoTokenizer.from_pretrained("{folder}").save_pretrained("{folder}")`'
    )


def _choose_graph(folder: Path, architecture: str) -> tuple[str | None, Layout, tuple[Path, ...]]:
    """Our export where we can, else the folder's own graph, else an error that says what would do."""
    safetensors = weight_files(folder)
    if architecture in ARCHITECTURES and safetensors:
        return None, Layout.PACKED, safetensors
    for name in ONNX_PATHS:
        graph = folder / name
        if graph.is_file():
            beside = [p for p in sorted(graph.parent.glob(f"{graph.name}*")) if p.is_file()]
            return name, Layout.PADDED, tuple(beside)
    if not safetensors:
        raise FormatError(
            f"{folder}: no model.safetensors and no {ONNX_PATHS[0]} (pickled weights are never read)"
        )
    raise FormatError(
        f"{folder}/config.json: model_type '{architecture}' is not one the exporter knows "
        f"({', '.join(ARCHITECTURES)}), and there is no {ONNX_PATHS[0]} to serve instead"
    )


def _pooling(
    folder: Path, modules: Sequence[Module], over: Mapping[str, Any]
) -> tuple[str | None, bool]:
    """Pooling mode, None where nothing says one, and whether prompts take part in it."""
    if "pooling" in over:
        return _known_pooling(over["pooling"], f"card override of {folder}"), True
    own = next((module.folder for module in modules if module.kind == "Pooling"), None)
    where = (own or folder / "1_Pooling") / "config.json"
    if not where.is_file():
        if own is not None:
            raise FormatError(f"{where}: missing, so the pooling is unknown")
        return None, True
    data = read_json(where)
    pools_prompt = data.get("include_prompt", True) is not False
    if "pooling_mode" in data:
        return _known_pooling(data["pooling_mode"], str(where)), pools_prompt
    flags = [
        key for key, value in data.items() if key.startswith("pooling_mode_") and value is True
    ]
    if len(flags) != 1:
        raise FormatError(f"{where}: expected exactly one pooling_mode to be true, found {flags}")
    if flags[0] not in POOLING_FLAGS:
        raise FormatError(f"{where}: '{flags[0]}' is not supported")
    return POOLING_FLAGS[flags[0]], pools_prompt


def _known_pooling(name: object, where: str) -> str:
    if name in (SPLADE, FIRST_LAST):
        return str(name)
    if name in POOLING_NAMES:
        return POOLING_NAMES[str(name)]
    if name in POOLING_NAMES.values():
        return str(name)
    raise FormatError(f"{where}: pooling_mode {name!r} is not one of {', '.join(POOLING_NAMES)}")


def _dimensions(
    folder: Path, config: Mapping[str, Any], architecture: str, *, is_exported: bool
) -> Dimensions:
    """Sizes by the family's own names for them; of a graph that is served as it is, by the usual ones."""
    if is_exported:
        try:
            return ARCHITECTURES[architecture].dimensions(config)
        except FormatError as error:
            raise FormatError(f"{folder}/{error.message}") from error
    positions = None
    if "max_position_embeddings" in config:
        positions = _positive(config, "max_position_embeddings", folder)
    return Dimensions(
        _positive(config, "hidden_size", folder), _positive(config, "vocab_size", folder), positions
    )


def _max_tokens(folder: Path, sizes: Dimensions, over: Mapping[str, Any]) -> int:
    """The smallest of what the files say: never beyond the position table."""
    said: list[int] = []
    if "max_tokens" in over:
        said.append(int(over["max_tokens"]))
    sentence = folder / "sentence_bert_config.json"
    if not said and sentence.is_file():
        length = read_json(sentence).get("max_seq_length")
        if length is not None:
            said.append(_int(length, f"{sentence}: max_seq_length"))
    if not said:
        tokenizer = folder / "tokenizer_config.json"
        if tokenizer.is_file():
            length = read_json(tokenizer).get("model_max_length")
            # transformers writes 1e30 for "no limit".
            if isinstance(length, int | float) and 0 < length < 1e9:  # noqa: PLR2004 - see above
                said.append(int(length))
    if sizes.max_positions is not None:
        said.append(sizes.max_positions)
    if not said:
        raise FormatError(
            f"{folder}: max tokens unknown: neither sentence_bert_config.json (max_seq_length), "
            "tokenizer_config.json (model_max_length) nor config.json (max_position_embeddings) says"
        )
    return min(said)


def _prompts(folder: Path, over: Mapping[str, Any]) -> tuple[dict[str, str], str | None]:
    path = folder / "config_sentence_transformers.json"
    data = read_json(path) if path.is_file() else {}
    prompts = over.get("prompts", data.get("prompts") or {})
    if not isinstance(prompts, dict) or not all(
        isinstance(k, str) and isinstance(v, str) for k, v in prompts.items()
    ):
        raise FormatError(f"{path}: prompts must map names to texts")
    default = data.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise FormatError(f"{path}: default_prompt_name '{default}' is not among its prompts")
    return prompts, default


def _checked(test: Callable[[Any], bool], value: object, what: str) -> Any:  # noqa: ANN401 - narrowed by test
    if not test(value):
        raise FormatError(f"{what} is missing or of the wrong type")
    return value


def _int(value: object, what: str) -> int:
    found: int = _checked(
        lambda v: isinstance(v, int) and not isinstance(v, bool) and v > 0, value, what
    )
    return found


def _positive(config: Mapping[str, Any], name: str, folder: Path) -> int:
    return _int(config.get(name), f"{folder}/config.json: '{name}'")


def _text(config: Mapping[str, Any], name: str, folder: Path) -> str:
    found: str = _checked(
        lambda v: isinstance(v, str) and bool(v),
        config.get(name),
        f"{folder}/config.json: '{name}'",
    )
    return found


GRAPH: Final = "model.onnx"
