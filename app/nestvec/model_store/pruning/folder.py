"""Writes the folder of a model with fewer tokens: table, tokenizer, and every place where a token's id stands."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from nestvec.engine.text.tokenizer_library import open_library
from nestvec.engine.types import OutputKind
from nestvec.errors import FormatError
from nestvec.export.architectures import STATIC_TYPE
from nestvec.export.families.static import HAS_MAPPING, MAPPING, SUBWORDS, TABLE_ROWS, WEIGHTS
from nestvec.export.graph.weights import SINGLE_FILE
from nestvec.model_store.folder.model_folder import TOKENIZER_FILE, ModelFolder
from nestvec.model_store.folder.static_folders import MODEL2VEC, WORD_TABLE
from nestvec.model_store.pruning.tokens import TokenizerModel
from nestvec.model_store.sources.checkpoints import (
    PROVENANCE,
    Tensors,
    new_folder,
    read_tensors,
    weight_hashes,
)
from nestvec.model_store.sources.file_names import (
    ADDED_TOKENS_FILE,
    TOKENIZER_CONFIG_FILE,
)
from nestvec.system.json_files import load_json, read_json

# Tensors with a row for each token: tables that are looked up, and heads that no vector of a text goes through.
TOKEN_TENSORS: Final = re.compile(
    r"(.*\.)?(word_embeddings|embed_tokens|tok_embeddings|shared|wte|embedding)\.weight"
    r"|embeddings"
    r"|(.*\.)?word_embeddings\.parametrizations\.weight\.original"
    r"|(.*\.)?(lm_head|cls\.predictions|predictions|vocab_projector|generator_lm_head)(\.decoder)?\.(weight|bias)"
    r"|decoder\.(weight|bias)"
)
# What is not copied: other forms of the weights, and other forms of the tokenizer.
DROPPED_SUFFIXES: Final = (
    *(
        ".onnx",
        ".onnx_data",
        ".xml",
        ".h5",
        ".msgpack",
        ".ot",
        ".gguf",
        ".tflite",
        ".model",
        ".data",
    ),
)
DROPPED_FILES: Final = re.compile(
    r"vocab\.(txt|json)|merges\.txt|pytorch_model.*|model.*\.safetensors|generation_config\.json"
    r"|model\.safetensors\.index\.json|tokenizer\.json|config\.json|nestvec\.json|card\.toml"
)
TOKEN_ID: Final = re.compile(r".*_token_ids?")
# Families number positions from behind the padding token's id: up to this id all are kept, so that it stays.
MAX_PADDING_ID: Final = 100


@dataclass(frozen=True, slots=True)
class PrunedTokens:
    """Which tokens are kept.

    Attributes:
        old_ids: Old ids of the rows that are kept, rising; (n,).
        tokenizer: The new tokenizer.json.
        rows: Number of rows before.
    """

    old_ids: NDArray[np.int64]
    tokenizer: Mapping[str, Any]
    rows: int

    @property
    def new_ids(self) -> dict[int, int]:
        """New ids by old ones."""
        return {old: new for new, old in enumerate(self.old_ids.tolist())}


def check_prunable(folder: ModelFolder) -> None:
    """Refuse a model whose outputs are known by tokens' ids, or whose weights are a graph.

    Raises:
        FormatError: Says why.
    """
    if folder.onnx_file is not None:
        raise FormatError(f"{folder.path}: its graph {folder.onnx_file} is served as it is")
    kinds = set(folder.head.kinds) - {OutputKind.DENSE, OutputKind.TOKENS, OutputKind.LABELS}
    if kinds or folder.head.query_lookup is not None or folder.pair is not None:
        raise FormatError(
            f"{folder.path}: gives weights of terms, or scores by tokens, which its own ids name; models of vectors "
            "and classifiers are pruned"
        )


def choose_tokens(
    folder: ModelFolder, used: NDArray[np.bool_], scripts: frozenset[str]
) -> PrunedTokens:
    """Choose the tokens of a smaller model.

    Args:
        folder: The model.
        used: Which ids must be kept, [V].
        scripts: Whose single letters are kept, too.

    Raises:
        FormatError: The tokenizer is of a kind that cannot be pruned.
    """
    tokenizer = load_json(folder.tokenizer_path.read_text("utf-8"))
    model = TokenizerModel.read(tokenizer)
    changes = folder.tokenizer_changes
    adds = folder.adds_special_tokens
    library = open_library(folder.tokenizer_path, adds_special_tokens=adds, changes=changes)
    ids = library.get_vocab(with_added_tokens=True)
    names = {number: token for token, number in ids.items()}
    wanted = [names[number] for number in np.flatnonzero(used).tolist() if number in names]
    kept = {model.ids[token] for token in model.needed(wanted, scripts)}
    # Added tokens, and special ones that the vocabulary may have: they are named in many places.
    kept |= set(library.get_added_tokens_decoder())
    kept |= {number for number in _ids_in(tokenizer.get("post_processor")) if number in names}
    padding = folder.config.get("pad_token_id")
    if isinstance(padding, int) and 0 <= padding <= MAX_PADDING_ID:
        kept |= set(range(padding + 1))
    rows = _rows(folder)
    kept |= set(range(*_ngram_rows(folder)))
    old_ids = np.array(sorted(number for number in kept if number < rows), np.int64)
    new_ids = {old: new for new, old in enumerate(old_ids.tolist())}
    return PrunedTokens(old_ids, _pruned_tokenizer(tokenizer, model, new_ids), rows)


def write_pruned(
    root: Path, folder: ModelFolder, tokens: PrunedTokens, out: Path, provenance: Mapping[str, Any]
) -> None:
    """Write the folder of a model with fewer tokens.

    Args:
        root: The model's folder, of which other files are copied.
        folder: What it says.
        tokens: Which tokens are kept.
        out: The new folder.
        provenance: What it was made of, kept in `nestvec.json`.

    Raises:
        FormatError: A tensor of a token a row is not known by its name, or there is no table.
        ArtefactError: The folder exists or cannot be written.
    """
    tensors = _pruned_tensors(folder, tokens)
    inside = folder.path.relative_to(root)
    with new_folder(out):
        for path in sorted(root.rglob("*")):
            relative = path.relative_to(root)
            if path.is_file() and not _is_dropped(relative, inside):
                (out / relative.parent).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, out / relative)
        encoder = out / inside
        encoder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, encoder / SINGLE_FILE, metadata={"format": "pt"})
        _write_json(encoder / TOKENIZER_FILE, tokens.tokenizer)
        _write_json(encoder / "config.json", _pruned_config(folder, tokens))
        _rewrite_beside(encoder, tokens.new_ids)
        _check_ids(folder, encoder, tokens.new_ids)
        _write_json(out / PROVENANCE, {**provenance, "weights": weight_hashes(folder.path)})


def _rows(folder: ModelFolder) -> int:
    """Return the number of tokens: of word tables that of rows, each of which has two ids."""
    if SUBWORDS in folder.config:
        return int(folder.config[TABLE_ROWS])
    return folder.vocabulary_size


def _ngram_rows(folder: ModelFolder) -> tuple[int, int]:
    """Return the rows of n-grams, which any unseen word may need: first and last but one."""
    subwords = folder.config.get(SUBWORDS, {})
    first = int(subwords.get("first_row", 0))
    return first, first + int(subwords.get("buckets", 0))


def _ids_in(processor: object) -> set[int]:
    """Return the ids that a post-processor names."""
    if isinstance(processor, list):
        return set[int]().union(*map(_ids_in, processor))
    if not isinstance(processor, Mapping):
        return set()
    found = set[int]()
    for name, value in processor.items():
        if name == "ids" and isinstance(value, list):
            found |= {number for number in value if isinstance(number, int)}
        elif _is_named_id(name, value):
            found.add(value[1])
        else:
            found |= _ids_in(value)
    return found


def _is_named_id(name: str, value: object) -> bool:
    """Whether a field of a post-processor is a token and its id, as in BertProcessing."""
    return name in ("sep", "cls") and isinstance(value, list) and len(value) == 2  # noqa: PLR2004 - both


def _with_new_ids(processor: Any, new_ids: Mapping[int, int]) -> Any:  # noqa: ANN401 - JSON
    """Return a post-processor with other ids."""
    if isinstance(processor, list):
        return [_with_new_ids(value, new_ids) for value in processor]
    if not isinstance(processor, Mapping):
        return processor
    changed = {}
    for name, value in processor.items():
        if name == "ids" and isinstance(value, list):
            changed[name] = [new_ids.get(number, number) for number in value]
        elif _is_named_id(name, value):
            changed[name] = [value[0], new_ids.get(value[1], value[1])]
        else:
            changed[name] = _with_new_ids(value, new_ids)
    return changed


def _pruned_tokenizer(
    tokenizer: Mapping[str, Any], model: TokenizerModel, new_ids: Mapping[int, int]
) -> dict[str, Any]:
    """Return tokenizer.json with fewer tokens."""
    changed = {**tokenizer, "model": model.pruned(new_ids)}
    changed["added_tokens"] = [
        {**token, "id": new_ids[token["id"]]}
        for token in tokenizer.get("added_tokens") or []
        if token["id"] in new_ids
    ]
    changed["post_processor"] = _with_new_ids(tokenizer.get("post_processor"), new_ids)
    # Both are switched off where we read it; others pad with an id.
    if isinstance(tokenizer.get("padding"), Mapping):
        old = tokenizer["padding"].get("pad_id", 0)
        changed["padding"] = {**tokenizer["padding"], "pad_id": new_ids.get(old, 0)}
    return changed


def _pruned_tensors(folder: ModelFolder, tokens: PrunedTokens) -> Tensors:
    """Return the tensors, of tables the rows that are kept.

    Raises:
        FormatError: A tensor has as many rows as there are tokens and is not known, or none is.
    """
    tensors = read_tensors(folder.path)
    kept = tokens.old_ids
    if folder.architecture == STATIC_TYPE:
        return _pruned_static(folder, tensors, tokens)
    sizes = {
        value
        for name, value in folder.config.items()
        if name != "vocab_size" and type(value) is int
    }
    table_rows = 0
    for name, tensor in tensors.items():
        rows = tensor.shape[0] if tensor.ndim else 0
        if TOKEN_TENSORS.fullmatch(name) and rows == tokens.rows:
            tensors[name] = np.ascontiguousarray(tensor[kept])
            table_rows += tensor.ndim == 2  # noqa: PLR2004 - rows and columns
        elif tokens.rows in tensor.shape and tokens.rows not in sizes:
            raise FormatError(
                f"{folder.path}: tensor '{name}' of shape {tensor.shape} has a value for each token and is not known; "
                "models with such a part cannot be pruned"
            )
    if not table_rows:
        raise FormatError(f"{folder.path}: no table of {tokens.rows} tokens is known in it")
    return tensors


def _pruned_static(folder: ModelFolder, tensors: Tensors, tokens: PrunedTokens) -> Tensors:
    """Return a static model's tensors: the table where each token has a row, else the mapping to its rows."""
    per_token = {WEIGHTS, MAPPING} if folder.config.get(HAS_MAPPING) else set(tensors)
    return {
        name: np.ascontiguousarray(tensor[tokens.old_ids])
        if name in per_token and tensor.shape[:1] == (tokens.rows,)
        else tensor
        for name, tensor in tensors.items()
    }


def _pruned_config(folder: ModelFolder, tokens: PrunedTokens) -> dict[str, Any]:
    """Return config.json with the ids and the number of tokens of the smaller model."""
    path = folder.path / "config.json"
    config = read_json(path) if path.is_file() else dict(folder.config)
    new_ids = tokens.new_ids
    for name, value in config.items():
        if not TOKEN_ID.fullmatch(name):
            continue
        if type(value) is int:
            config[name] = new_ids.get(value, value if value < 0 else None)
        elif isinstance(value, list):
            config[name] = [new_ids[number] for number in value if number in new_ids]
    if config.get("model_type") != MODEL2VEC:
        config["vocab_size"] = len(tokens.old_ids)
    if WORD_TABLE in config and SUBWORDS in config:
        first = _ngram_rows(folder)[0]
        moved = {"rows": len(tokens.old_ids)}
        if first in new_ids and "first_row" in config[SUBWORDS]:
            moved["first_row"] = new_ids[first]
        config[SUBWORDS] = {**config[SUBWORDS], **moved}
    return config


def _rewrite_beside(encoder: Path, new_ids: Mapping[int, int]) -> None:
    """Put new ids into the copies of the files beside tokenizer.json."""
    path = encoder / TOKENIZER_CONFIG_FILE
    if path.is_file():
        fields = dict(read_json(path))
        decoder = fields.get("added_tokens_decoder")
        if isinstance(decoder, Mapping):
            fields["added_tokens_decoder"] = {
                str(new_ids[int(old)]): token
                for old, token in decoder.items()
                if old.isdecimal() and int(old) in new_ids
            }
            _write_json(path, fields)
    path = encoder / ADDED_TOKENS_FILE
    if path.is_file():
        added = read_json(path)
        _write_json(path, {t: new_ids[old] for t, old in added.items() if old in new_ids})


def _check_ids(folder: ModelFolder, encoder: Path, new_ids: Mapping[int, int]) -> None:
    """Check that the library gives each kept token the id of its row.

    Raises:
        FormatError: It does not: the file orders its tokens in a way that is not known.
    """
    old, new = (
        open_library(path, adds_special_tokens=True).get_vocab(with_added_tokens=True)
        for path in (folder.tokenizer_path, encoder / TOKENIZER_FILE)
    )
    expected = {token: new_ids[number] for token, number in old.items() if number in new_ids}
    if new != expected:
        raise FormatError(
            f"{folder.tokenizer_path}: its tokens are numbered in a way that cannot be pruned"
        )


def _is_dropped(relative: Path, inside: Path) -> bool:
    """Whether a file of the model's folder is not copied: what is written anew, other weights, other tokenizers."""
    if relative.parts[0].startswith(".") or relative.suffix in DROPPED_SUFFIXES:
        return True
    return relative.parent == inside and DROPPED_FILES.fullmatch(relative.name) is not None


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
