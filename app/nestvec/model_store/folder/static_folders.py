"""Folders of static models: those that model2vec and sentence-transformers write, and imported word tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nestvec.engine.text.subwords.parts import CHARACTERS, NGRAMS, NGrams, SubwordSettings
from nestvec.errors import FormatError
from nestvec.export.architectures import STATIC_TYPE
from nestvec.export.config.config_fields import MAX_SIZE
from nestvec.export.families.static import (
    HAS_MAPPING,
    HAS_WEIGHTS,
    MAPPING,
    SUBWORDS,
    TABLE_ROWS,
    TABLES,
    WEIGHTS,
)
from nestvec.export.graph.weights import SINGLE_FILE, Weights, weight_files
from nestvec.model_store.folder.module_classes import module_kind
from nestvec.system.json_files import load_json, read_json

MODEL2VEC: Final = "model2vec"
MODULE: Final = "StaticEmbedding"
# In the config.json of a word table that `nestvec model import` wrote: the version of its format.
WORD_TABLE: Final = "word_table"
WORD_TABLE_FORMAT: Final = 1
MAX_NGRAM_CHARS: Final = 64
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
    """Find a static model of another library, or a word table, in a folder; None for any other folder.

    Raises:
        FormatError: There is one, with parts that we would have to ignore.
    """
    module = _module(folder)
    config_path = folder / "config.json"
    config = read_json(config_path) if config_path.is_file() else {}
    is_model2vec = config.get("model_type") == MODEL2VEC
    is_word_table = config.get("model_type") == STATIC_TYPE and WORD_TABLE in config
    if module is None and not is_model2vec and not is_word_table:
        return None
    path = module or folder
    files = weight_files(path, reads_pickles=False)
    if not files:
        raise FormatError(f"{path}: no {SINGLE_FILE}, which a static model needs")
    with Weights(path, files) as weights:
        rows, width = _table_shape(path, weights)
        if is_word_table:
            sizes = _word_table(path, config, weights, rows)
        elif is_model2vec:
            sizes = _model2vec(path, weights, rows)
        else:
            _refuse_beside(path, weights)
            sizes = {"vocab_size": rows}
    # sentence-transformers keeps unknown tokens, model2vec leaves them out.
    return StaticFolder(
        path,
        {"model_type": STATIC_TYPE, "hidden_size": width, **sizes},
        {
            "pooling": "mean",
            "adds_special_tokens": False,
            "max_tokens": MAX_TOKENS,
            "drops_unknown": is_model2vec or is_word_table,
        },
    )


def read_subwords(config: Mapping[str, Any]) -> SubwordSettings | None:
    """Read what stands for words that a table lacks, of a config that `find_static` gave; None for nothing."""
    if SUBWORDS not in config:
        return None
    return SubwordSettings.read(config[SUBWORDS])


def _table_shape(path: Path, weights: Weights) -> tuple[int, int]:
    """Return rows and columns of the table.

    Raises:
        FormatError: There is none, or it is no matrix.
    """
    name = next((name for name in TABLES if name in weights), None)
    if name is None:
        raise FormatError(f"{path}: no tensor {' or '.join(TABLES)}")
    shape = weights.shape(name)
    if len(shape) != 2:  # noqa: PLR2004 - rows and columns
        raise FormatError(f"{path}: tensor '{name}' of shape {shape} is no table")
    return shape[0], shape[1]


def _model2vec(path: Path, weights: Weights, rows: int) -> dict[str, Any]:
    """Return the sizes of a model2vec folder: a quantised vocabulary has a row for several tokens, and weights.

    Raises:
        FormatError: The tensors beside the table do not fit each other.
    """
    lengths = {name: weights.shape(name) for name in (MAPPING, WEIGHTS) if name in weights}
    if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
        shapes = ", ".join(f"'{name}' {shape}" for name, shape in lengths.items())
        raise FormatError(f"{path}: tensors {shapes} must have one value for each token")
    tokens = lengths[MAPPING][0] if MAPPING in lengths else rows
    if WEIGHTS in lengths and lengths[WEIGHTS] != (tokens,):
        raise FormatError(
            f"{path}: tensor '{WEIGHTS}' has {lengths[WEIGHTS][0]} values for {tokens} tokens"
        )
    # Folders without them keep the config that they had: it is part of their space.
    found: dict[str, Any] = {"vocab_size": tokens}
    if MAPPING in lengths:
        found |= {TABLE_ROWS: rows, HAS_MAPPING: True}
    if WEIGHTS in lengths:
        found |= {HAS_WEIGHTS: True}
    return found


def _refuse_beside(path: Path, weights: Weights) -> None:
    """Refuse tensors beside the table that sentence-transformers does not read, in a folder that only it reads."""
    for name in (WEIGHTS, MAPPING):
        if name in weights:
            raise FormatError(
                f"{path}: tensor '{name}' beside the table is known of model2vec's folders only, whose config.json "
                f"says model_type '{MODEL2VEC}'"
            )


def _word_table(
    path: Path, config: Mapping[str, Any], weights: Weights, rows: int
) -> dict[str, Any]:
    """Return the sizes of a word table that `nestvec model import` wrote.

    Raises:
        FormatError: The folder is of another version, or its files do not fit each other.
    """
    where = f"{path}/config.json"
    if config[WORD_TABLE] != WORD_TABLE_FORMAT:
        raise FormatError(
            f"{where}: '{WORD_TABLE}' must be {WORD_TABLE_FORMAT}; import the table again"
        )
    found: dict[str, Any] = {"vocab_size": rows, TABLE_ROWS: rows}
    if WEIGHTS in weights:
        if weights.shape(WEIGHTS) != (rows,):
            raise FormatError(f"{path}: tensor '{WEIGHTS}' must have {rows} values, one a row")
        found |= {HAS_WEIGHTS: True}
    subwords = config.get(SUBWORDS)
    if subwords is None:
        return found
    if not _is_known(subwords, rows):
        raise FormatError(
            f"{where}: '{SUBWORDS}' must be of kind 'characters', or of kind 'ngrams' with min_chars, max_chars, "
            f"buckets and first_row that fit a table of {rows} rows; import the table again"
        )
    # Each row has a second id, which goes on with a word.
    return {**found, "vocab_size": 2 * rows, SUBWORDS: dict(subwords)}


def _is_known(subwords: object, rows: int) -> bool:
    """Whether a config's settings of subwords can be read, and lie within a table."""
    if not isinstance(subwords, dict) or rows > MAX_SIZE // 2 or subwords.get("rows") != rows:
        return False
    if subwords == {"kind": CHARACTERS, "rows": rows}:
        return True
    names = ("min_chars", "max_chars", "buckets", "first_row")
    numbers = [value for name in names if type(value := subwords.get(name)) is int]
    if subwords.get("kind") != NGRAMS or not len(numbers) == len(names) == len(subwords) - 2:
        return False
    ngrams = NGrams(*numbers)
    return (
        1 <= ngrams.min_chars <= ngrams.max_chars <= MAX_NGRAM_CHARS
        and ngrams.buckets >= 1
        and 0 <= ngrams.first_row <= rows - ngrams.buckets
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
