"""What a model folder's own files say: pooling, normalization, lengths, prompts. Read or refused, never guessed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nestvec.engine.instructions import Instruct
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Layout
from nestvec.errors import FormatError
from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.config.encoder_config import Dimensions
from nestvec.export.graph.weights import weight_files
from nestvec.model_store.folder.modules import SPLADE, Module, read_head, read_modules
from nestvec.model_store.folder.static_folders import find_static
from nestvec.model_store.heads.base import FIRST_LAST, Head
from nestvec.system.json_files import read_json

GRAPH_FILE: Final = "model.onnx"
TOKENIZER_FILE: Final = "tokenizer.json"
# Other forms of a tokenizer, which transformers converts.
OTHER_TOKENIZERS: Final = (
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model"),
    *("vocab.txt", "vocab.json"),
)
ONNX_PATHS: Final = ("onnx/model.onnx", "model.onnx")
# transformers writes 1e30 as `model_max_length` for "no limit".
UNLIMITED_TOKENS: Final = 1e9

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
class ModelFolder:
    """A model's folder on this disk and what its files (and its card) say of it.

    Attributes:
        path: The folder, which holds its tokenizer.json.
        config: Its config.json.
        architecture: The family's name, as the exporter knows it.
        layout: PACKED where the exporter knows the architecture, PADDED where `onnx_file` is served as it is.
        onnx_file: The folder's own graph, relative to it; None where we export one.
        weights: Files whose content decides the vectors.
        head: What follows the encoder; it names the pooling and the width of the encoder's states.
        vocabulary_size: Rows of the embedding table.
        max_tokens: Most tokens of an input, special tokens included.
        is_normalized: Whether vectors are scaled to unit length.
        pools_prompt: Whether a prompt's tokens count in pooling.
        prompts: Text put before an input, by name.
        default_prompt: Name of the prompt used where a call names none; None for no prompt.
        adds_special_tokens: Whether the tokenizer puts special tokens around a text.
        drops_unknown: Whether unknown tokens are left out (model2vec).
        instruct: Templates of instructions; None where the model takes none.
        echo: What stands before a text's first reading and between its two, for models that read it twice.
    """

    path: Path
    config: Mapping[str, Any]
    architecture: str
    layout: Layout
    onnx_file: str | None
    weights: tuple[Path, ...]
    head: Head
    vocabulary_size: int
    max_tokens: int
    is_normalized: bool
    pools_prompt: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    adds_special_tokens: bool = True
    drops_unknown: bool = False
    instruct: Instruct | None = None
    echo: tuple[str, str] | None = None

    @property
    def tokenizer_path(self) -> Path:
        """Path of its tokenizer.json."""
        return self.path / TOKENIZER_FILE

    def graph(self, artefact: Path) -> Path:
        """Return the ONNX file to serve: the folder's own, or the one in the artefact's folder."""
        return self.path / self.onnx_file if self.onnx_file else artefact / GRAPH_FILE

    def open_tokenizer(self, max_tokens: int | None = None) -> Tokenizer:
        """Open the model's tokenizer.

        Args:
            max_tokens: Where it cuts an input; None for as many tokens as the model takes.

        Raises:
            FormatError: It cannot be read.
        """
        return Tokenizer(
            self.tokenizer_path,
            max_tokens=self.max_tokens if max_tokens is None else max_tokens,
            vocabulary_size=self.vocabulary_size,
            adds_special_tokens=self.adds_special_tokens,
            drops_unknown=self.drops_unknown,
        )


def read_model_folder(
    folder: Path,
    overrides: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> ModelFolder:
    """Read a folder in Hugging Face / sentence-transformers layout.

    Args:
        folder: Holds config.json, tokenizer.json and safetensors or an ONNX graph.
        overrides: From a model card: pooling, normalize, max_tokens, prompts, adds_special_tokens.
        config: From a model card: stands for a config.json that the folder lacks.

    Raises:
        FormatError: A file is missing or corrupt, something is nowhere said, or a module is not supported;
            names the file and the field.
    """
    overrides = dict(overrides or {})
    static = find_static(folder)
    if static is not None:
        folder, config = static.folder, static.config
        overrides = {**static.overrides, **overrides}
    path = folder / "config.json"
    config = dict(config) if config and (static or not path.is_file()) else read_json(path)
    if not (folder / TOKENIZER_FILE).is_file():
        raise FormatError(_without_tokenizer(folder))
    _text(config, "model_type", folder)
    architecture = architecture_of(config)
    onnx_file, layout, weights = _choose_graph(folder, architecture)
    sizes = _dimensions(folder, config, architecture, is_exported=onnx_file is None)
    modules = () if static is not None else read_modules(folder)
    pooling, pools_prompt = _pooling(folder, modules, overrides)
    head = read_head(folder, config, sizes.hidden_size, modules, pooling=pooling)
    if onnx_file is not None and type(head) is not Head:
        raise FormatError(
            f"{folder}: what stands behind its encoder needs an architecture that the exporter knows, not {onnx_file}"
        )
    prompts, default_prompt = _prompts(folder, overrides)
    return ModelFolder(
        path=folder,
        config=config,
        architecture=architecture,
        layout=layout,
        onnx_file=onnx_file,
        weights=(*weights, *head.files),
        head=head,
        vocabulary_size=sizes.vocab_size,
        max_tokens=_max_tokens(folder, sizes, overrides),
        # Clients of an embeddings API expect unit vectors, as OpenAI's are, so a chain without Normalize is served as
        # unit vectors too, unless its card says otherwise; `normalize: false` gives raw ones.
        is_normalized=bool(overrides.get("normalize", True)),
        pools_prompt=pools_prompt,
        prompts={**head.prompts, **prompts},
        default_prompt=default_prompt,
        adds_special_tokens=bool(overrides.get("adds_special_tokens", True)),
        drops_unknown=bool(overrides.get("drops_unknown", False)),
        instruct=Instruct(**overrides["instruct"]) if "instruct" in overrides else None,
        echo=(overrides["echo"][0], overrides["echo"][1]) if "echo" in overrides else None,
    )


def _without_tokenizer(folder: Path) -> str:
    """Say what is wrong with a folder without tokenizer.json, and the way out where another form is there."""
    other_forms = [name for name in OTHER_TOKENIZERS if (folder / name).is_file()]
    message = f"{folder}: tokenizer.json is missing"
    if not other_forms:
        return message
    return (
        f"{message}, and {other_forms[0]} is not read; in a venv with transformers (and sentencepiece) write it by "
        f'`AutoTokenizer.from_pretrained("{folder}").save_pretrained("{folder}")`'
    )


def _choose_graph(folder: Path, architecture: str) -> tuple[str | None, Layout, tuple[Path, ...]]:
    """Choose our export where we can, else the folder's own graph.

    Returns:
        The folder's own graph (None for our export), its layout, and the files whose content decides the vectors.

    Raises:
        FormatError: There is neither; says what would do.
    """
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
    folder: Path, modules: Sequence[Module], overrides: Mapping[str, Any]
) -> tuple[str | None, bool]:
    """Return the pooling mode, None where nothing says one, and whether prompts take part in it."""
    if "pooling" in overrides:
        return _known_pooling(overrides["pooling"], f"card override of {folder}"), True
    module = next((module.folder for module in modules if module.kind == "Pooling"), None)
    path = (module or folder / "1_Pooling") / "config.json"
    if not path.is_file():
        if module is not None:
            raise FormatError(f"{path}: missing, so the pooling is unknown")
        return None, True
    config = read_json(path)
    pools_prompt = config.get("include_prompt", True) is not False
    if "pooling_mode" in config:
        return _known_pooling(config["pooling_mode"], str(path)), pools_prompt
    flags = [
        key for key, value in config.items() if key.startswith("pooling_mode_") and value is True
    ]
    if len(flags) != 1:
        raise FormatError(f"{path}: expected exactly one pooling_mode to be true, found {flags}")
    if flags[0] not in POOLING_FLAGS:
        raise FormatError(f"{path}: '{flags[0]}' is not supported")
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
    """Return sizes by the family's own names for them; of a graph that is served as it is, by the usual ones."""
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


def _max_tokens(folder: Path, sizes: Dimensions, overrides: Mapping[str, Any]) -> int:
    """Return the smallest limit that the files say: never beyond the position table.

    Raises:
        FormatError: None of the files says one.
    """
    limits: list[int] = []
    if "max_tokens" in overrides:
        limits.append(int(overrides["max_tokens"]))
    sentence = folder / "sentence_bert_config.json"
    if not limits and sentence.is_file():
        length = read_json(sentence).get("max_seq_length")
        if length is not None:
            limits.append(_int(length, f"{sentence}: max_seq_length"))
    if not limits:
        tokenizer = folder / "tokenizer_config.json"
        if tokenizer.is_file():
            length = read_json(tokenizer).get("model_max_length")
            if isinstance(length, int | float) and 0 < length < UNLIMITED_TOKENS:
                limits.append(int(length))
    if sizes.max_positions is not None:
        limits.append(sizes.max_positions)
    if not limits:
        raise FormatError(
            f"{folder}: max tokens unknown: neither sentence_bert_config.json (max_seq_length), "
            "tokenizer_config.json (model_max_length) nor config.json (max_position_embeddings) says"
        )
    return min(limits)


def _prompts(folder: Path, overrides: Mapping[str, Any]) -> tuple[dict[str, str], str | None]:
    """Return the folder's prompts by name, and the name of the default one."""
    path = folder / "config_sentence_transformers.json"
    config = read_json(path) if path.is_file() else {}
    prompts = overrides.get("prompts", config.get("prompts") or {})
    if not isinstance(prompts, dict) or not all(
        isinstance(name, str) and isinstance(text, str) for name, text in prompts.items()
    ):
        raise FormatError(f"{path}: prompts must map names to texts")
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise FormatError(f"{path}: default_prompt_name '{default}' is not among its prompts")
    return prompts, default


def _checked(test: Callable[[Any], bool], value: object, what: str) -> Any:  # noqa: ANN401 - narrowed by test
    if not test(value):
        raise FormatError(f"{what} is missing or of the wrong type")
    return value


def _int(value: object, what: str) -> int:
    number: int = _checked(
        lambda v: isinstance(v, int) and not isinstance(v, bool) and v > 0, value, what
    )
    return number


def _positive(config: Mapping[str, Any], name: str, folder: Path) -> int:
    return _int(config.get(name), f"{folder}/config.json: '{name}'")


def _text(config: Mapping[str, Any], name: str, folder: Path) -> str:
    text: str = _checked(
        lambda v: isinstance(v, str) and bool(v),
        config.get(name),
        f"{folder}/config.json: '{name}'",
    )
    return text
