"""Chains of modules that give token vectors to be compared one by one: PyLate's, and sentence-transformers' own.

Source: `MultiVectorEncoder`, `Transformer`, `MultiVectorMask` and `HierarchicalTokenPooling` of sentence-transformers
6.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from nestvec.engine.text.late_interaction import RoleLengths
from nestvec.engine.vectors.token_vectors import TokenPooling
from nestvec.errors import FormatError
from nestvec.model_store.heads.base import read_model_settings
from nestvec.model_store.heads.late import (
    PYLATE_FIELDS,
    ColbertHead,
    checked_length,
    colbert_head,
    read_pylate,
)
from nestvec.model_store.heads.vocabulary import Vocabulary
from nestvec.model_store.sources.file_names import (
    MODEL_FILE,
    SPECIAL_TOKENS_FILE,
    TOKENIZER_CONFIG_FILE,
)
from nestvec.system.json_files import read_json

MASK: Final = "MultiVectorMask"
VECTOR_MERGING: Final = "HierarchicalTokenPooling"
OWN_TYPE: Final = "MultiVectorEncoder"
TASKS: Final = {"query", "document"}
# Lengths of queries and documents among the Transformer's settings, which mean something for token vectors only.
LENGTH_FIELDS: Final = frozenset({"query_length", "document_length", "query_expansion"})
EXPANSION_KEYS: Final = {"strategy", "attend", "token", "length"}
# By the library's name of a strategy: whether queries that are longer than the expansion are cut.
CUTS_QUERIES: Final[Mapping[str, bool]] = {"fixed": True, "min": False}


class ModuleSettings(NamedTuple):
    """A module's settings, and the file that has them."""

    path: Path
    values: Mapping[str, Any]


def read_token_vectors(
    folder: Path,
    config: Mapping[str, Any],
    hidden_size: int,
    chain: Path,
    modules: Sequence[tuple[str, Path]],
    transformer: tuple[Path, Mapping[str, Any]],
) -> ColbertHead:
    """Read the head of a model of token vectors.

    Args:
        folder: The encoder's folder.
        config: Its config.json.
        hidden_size: Columns of the encoder's states, H.
        chain: The modules.json.
        modules: Kind and folder of each module, the encoder's first.
        transformer: The file of the Transformer's settings, and its content.

    Raises:
        FormatError: Something else stands in the chain, or settings cannot be read or are not served.
    """
    layers = _projection(chain, modules)
    by_kind = dict(modules)
    model = read_model_settings(chain.parent)
    settings = ModuleSettings(*transformer)
    mask = _settings(by_kind.get(MASK))
    if (MASK in by_kind or model.get("model_type") == OWN_TYPE) and not PYLATE_FIELDS & set(model):
        late = _role_lengths(folder, settings, mask)
        head = colbert_head(folder, config, hidden_size, late, layers)
    else:
        said = {name for name in LENGTH_FIELDS if settings.values.get(name)}
        if said or mask.values.get("skiplist_words"):
            place, name = (settings, min(said)) if said else (mask, "skiplist_words")
            raise FormatError(f"{place.path}: {name}: {MODEL_FILE} says PyLate's settings already")
        head = read_pylate(folder, config, hidden_size, layers)
    if VECTOR_MERGING not in by_kind:
        return head
    return replace(head, token_pooling=_token_pooling(_settings(by_kind[VECTOR_MERGING])))


def _settings(folder: Path | None) -> ModuleSettings:
    """Read a module's config.json; nothing where there is none."""
    path = Path() if folder is None else folder / "config.json"
    return ModuleSettings(path, read_json(path) if path.is_file() else {})


def _projection(path: Path, modules: Sequence[tuple[str, Path]]) -> tuple[Path, ...]:
    """Return the folders of the dense layers that token states go through.

    Raises:
        FormatError: There is another module before or between them.
    """
    layers = [folder for kind, folder in modules if kind == "Dense"]
    kinds = [kind for kind, _ in modules[1:]]
    behind = kinds[len(layers) :]
    if kinds[: len(layers)] != ["Dense"] * len(layers) or "LayerNorm" in behind:
        raise FormatError(
            f"{path}: expected Dense modules behind the Transformer, then Normalize or {MASK}"
        )
    if VECTOR_MERGING in behind and "Normalize" not in behind:
        raise FormatError(f"{path}: expected Normalize before {VECTOR_MERGING}")
    return tuple(layers)


def _role_lengths(folder: Path, settings: ModuleSettings, mask: ModuleSettings) -> RoleLengths:
    """Read how queries and documents are tokenized, in a folder of sentence-transformers' own."""
    path, values = settings.path, settings.values
    whole = values.get("max_seq_length")
    whole = whole if isinstance(whole, int) else 0  # what else it may be is refused with the window
    query, document = (
        checked_length(path, values, name, 0) if values.get(name) is not None else whole
        for name in ("query_length", "document_length")
    )
    vocabulary = Vocabulary.read(folder)
    words = mask.values.get("skiplist_words") or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise FormatError(f"{mask.path}: skiplist_words must be a list of texts")
    skipped, tasks = vocabulary.ids_of(words), _tasks(mask, "skiplist_tasks")
    late = RoleLengths(
        document_tokens=document,
        skip_ids=skipped if "document" in tasks else (),
        longest_query=query,
        query_skip_ids=skipped if "query" in tasks else (),
    )
    expansion = values.get("query_expansion")
    if expansion is None:
        return late
    if (
        not isinstance(expansion, dict)
        or set(expansion) - EXPANSION_KEYS
        or str(expansion.get("strategy")) not in CUTS_QUERIES
        or not isinstance(expansion.get("token", ""), str | None)
        or not isinstance(expansion.get("attend", False), bool)
    ):
        raise FormatError(
            f"{path}: query_expansion must be an object of {', '.join(sorted(EXPANSION_KEYS))}, its strategy one of "
            f"{', '.join(CUTS_QUERIES)}"
        )
    width = checked_length(path, expansion, "length", 0)
    is_cut = CUTS_QUERIES[str(expansion["strategy"])]
    return replace(
        late,
        query_tokens=width,
        longest_query=width if is_cut or not query else max(query, width),
        mask_id=_expansion_id(folder, path, vocabulary, expansion.get("token")),
        attends_expansion=expansion.get("attend", False),
    )


def _expansion_id(folder: Path, path: Path, vocabulary: Vocabulary, token: object) -> int:
    """Return the id that queries are filled up with: of this token, else of the tokenizer's mask, else of its end."""
    files = [folder / name for name in (TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE)]
    said = [read_json(file) for file in files if file.is_file()]
    if any(each.get("padding_side") == "left" for each in said):
        raise FormatError(
            f"{path}: query_expansion: the tokenizer pads on the left, so queries would be filled up before their text"
        )
    named = [token]
    if token is None:
        marks = [
            [each[name] for each in said if each.get(name)] for name in ("mask_token", "eos_token")
        ]
        named = [*marks[0], "[MASK]", "<mask>", *marks[1]]
    spelled = [str(each.get("content") if isinstance(each, dict) else each) for each in named]
    for each in spelled:
        if (token_id := vocabulary.id_of(each)) is not None:
            return token_id
    raise FormatError(f"{path}: query_expansion: the tokenizer has no token '{spelled[0]}'")


def _token_pooling(settings: ModuleSettings) -> TokenPooling:
    """Read how the model itself merges like token vectors."""
    path, values = settings.path, settings.values
    factor = values.get("pool_factor", 1.0)
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not factor >= 1:
        raise FormatError(f"{path}: pool_factor must be a number of at least 1")
    kept = values.get("num_protected_tokens", 1)
    if not isinstance(kept, int) or isinstance(kept, bool) or kept < 0:
        raise FormatError(f"{path}: num_protected_tokens must be a number of tokens")
    # Folders of before the field had none, and the library leaves their vectors as they are.
    scales = values.get("normalize_embeddings", False)
    if not isinstance(scales, bool):
        raise FormatError(f"{path}: normalize_embeddings must be true or false")
    tasks = _tasks(settings, "tasks")
    return TokenPooling(float(factor), kept, scales, "query" in tasks, "document" in tasks)


def _tasks(settings: ModuleSettings, name: str) -> set[str]:
    """Read for which texts a module is; documents unless it says."""
    tasks = settings.values.get(name)
    tasks = ["document"] if tasks is None else [tasks] if isinstance(tasks, str) else tasks
    if not isinstance(tasks, list) or not all(each in TASKS for each in map(str, tasks)):
        raise FormatError(f"{settings.path}: {name} takes {' and '.join(sorted(TASKS))}")
    return set(tasks)
