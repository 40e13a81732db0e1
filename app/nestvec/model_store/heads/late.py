"""Token vectors that are compared one by one: ColBERT, and BGE-M3's three outputs of one pass.

Source: ColBERT (arXiv:2004.12832) as its authors and as sentence-transformers and PyLate store it; BGE-M3
(arXiv:2402.03216), section 2.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from nestvec.engine.backend import BackendFactory
from nestvec.engine.text.late_interaction import LateInteraction
from nestvec.engine.types import OutputKind
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import FormatError
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.graph_heads import (
    Dense,
    GraphHead,
    concatenated_head,
    dense_head,
    read_dense,
)
from nestvec.model_store.heads.base import ROLES, Head, read_model_settings
from nestvec.model_store.heads.dense import dense_files, dense_sizes, read_projection
from nestvec.model_store.heads.vocabulary import Vocabulary
from nestvec.model_store.sources.file_names import M3_LAYERS, MODEL_FILE
from nestvec.system.json_files import read_json

STANFORD_CLASS: Final = "HF_ColBERT"
STANFORD_FILE: Final = "artifact.metadata"
M3_SPECIAL: Final = ("<s>", "</s>", "<pad>", "<unk>", "[CLS]", "[SEP]", "[PAD]", "[UNK]")
# Fields of config_sentence_transformers.json by which PyLate's folders are known.
PYLATE_FIELDS: Final = frozenset(
    {
        *("query_prefix", "document_prefix", "query_length", "document_length"),
        *("do_query_expansion", "attend_to_expansion_tokens", "skiplist_words"),
    }
)
MIN_LENGTH: Final = 4  # of a query or document: special tokens and one of the text
M3_SPARSE, M3_TOKENS = M3_LAYERS
# Behind the states, in this order.
M3_PARTS: Final = (M3_TOKENS, M3_SPARSE)
M3_SUFFIXES: Final = (".safetensors", ".pt")  # the second is how the authors publish them


@dataclass(frozen=True, slots=True)
class ColbertHead(Head):
    """A head that projects each token's state to few dimensions.

    Attributes:
        layers: Folders of the projection's Dense modules, in order; empty where it is `linear` in the encoder's
            checkpoint.
    """

    layers: tuple[Path, ...] = ()

    @property
    @override
    def dimensions(self) -> int:
        """Dimensions of a token vector."""
        return self.columns

    @property
    @override
    def columns(self) -> int:
        """Output size of the projection."""
        if self.layers:
            return dense_sizes(self.layers[-1])[1]
        with Weights(self.folder) as weights:
            return weights.shape("linear.weight")[0]

    @override
    def graph_head(self) -> GraphHead | None:
        """Return the projection, [T, D].

        Raises:
            FormatError: A tensor is missing or of another shape.
        """
        if self.layers:
            return dense_head(read_projection(self.layers, self.hidden_size))
        with Weights(self.folder) as weights:
            layer = read_dense(weights, ["linear"], self.hidden_size, None, needs_bias=False)
        return dense_head([layer])

    @override
    def summary(self) -> dict[str, Any]:
        """Return how token vectors are made; its repr is hashed, so `LateInteraction` keeps its name and fields."""
        settings = [read_json(folder / "config.json") for folder in self.layers]
        # A single layer's settings were never hashed: its weights are.
        return (
            {"late_interaction": repr(self.late_interaction)}
            | ({"dense": settings} if len(settings) > 1 else {})
            | ({"token_pooling": repr(self.token_pooling)} if self.token_pooling else {})
        )


@dataclass(frozen=True, slots=True)
class M3Head(Head):
    """A head that gives a vector, token vectors and term weights of one pass."""

    @property
    @override
    def columns(self) -> int:
        """Columns of the states, and of what each layer makes of them."""
        return self.hidden_size + sum(len(part.bias) for part in self._parts())

    @override
    def graph_head(self) -> GraphHead | None:
        """Return the states and what each layer makes of them, side by side, [T, columns].

        Raises:
            FormatError: A tensor is missing or of another shape.
        """
        return concatenated_head(self._parts())

    @override
    def pooler(self, artefact: Path, open_backend: BackendFactory) -> Pooler:
        """Return a pooler that knows which columns are states, token vectors and term weights."""
        end = self.columns - 1
        return Pooler(
            self.pooling,
            pooled_columns=self.hidden_size,
            token_columns=slice(self.hidden_size, end),
            lexical_column=end,
            special_ids=Vocabulary.read(self.folder).ids_of(M3_SPECIAL),
        )

    @override
    def summary(self) -> dict[str, Any]:
        """Return that it is BGE-M3's head."""
        return {"m3": True}

    def _parts(self) -> list[Dense]:
        """Read the layers for token vectors and for term weights."""
        layers = []
        for path, name in zip(self.files, M3_PARTS, strict=True):
            with Weights(self.folder, (path,)) as weights:
                # As `torch.save(layer.state_dict())` names them, or under the layer's own name.
                prefix = "" if "weight" in weights else f"{name}."
                out = 1 if name == M3_SPARSE else weights.shape(f"{prefix}weight")[0]
                weight = weights.get(f"{prefix}weight", (out, self.hidden_size)).T
                layers.append(Dense(weight, weights.get(f"{prefix}bias", (out,))))
        return layers


def m3_files(folder: Path, *, reads_pickles: bool = True) -> tuple[Path, ...]:
    """Return the files of BGE-M3's two further layers; none where a folder has not both.

    Args:
        folder: The model's folder.
        reads_pickles: Whether torch's own files count, as the authors publish them.
    """
    suffixes = M3_SUFFIXES if reads_pickles else M3_SUFFIXES[:1]
    found = [
        next((path for end in suffixes if (path := folder / f"{name}{end}").is_file()), None)
        for name in M3_PARTS
    ]
    files = tuple(path for path in found if path is not None)
    return files if len(files) == len(M3_PARTS) else ()


def read_m3(
    folder: Path,
    config: Mapping[str, Any],
    hidden_size: int,
    pooling: str,
    files: tuple[Path, ...],
) -> M3Head:
    """Read the head of a folder with BGE-M3's layers, in these files."""
    return M3Head(
        folder,
        config,
        hidden_size,
        pooling,
        kinds=(OutputKind.DENSE, OutputKind.SPARSE, OutputKind.TOKENS),
        late_interaction=LateInteraction(skips_first=True),
        prompts=ROLES,
        files=files,
    )


def is_stanford_colbert(config: Mapping[str, Any]) -> bool:
    """Whether a config.json names the class of ColBERT's own code (stanford-futuredata/ColBERT)."""
    classes = config.get("architectures")
    return isinstance(classes, list) and STANFORD_CLASS in classes


def read_stanford_colbert(folder: Path, config: Mapping[str, Any], hidden_size: int) -> ColbertHead:
    """Read the head of a folder as ColBERT's own code (stanford-futuredata/ColBERT) stores it.

    Raises:
        FormatError: Its settings cannot be read, or name tokens that the tokenizer lacks.
    """
    path = folder / STANFORD_FILE
    settings = read_json(path) if path.is_file() else {}
    vocabulary = Vocabulary.read(folder)
    skipped = string.punctuation if settings.get("mask_punctuation", True) else ""
    late = LateInteraction(
        query_marker=vocabulary.first_id_of(str(settings.get("query_token_id", "[unused0]"))),
        document_marker=vocabulary.first_id_of(str(settings.get("doc_token_id", "[unused1]"))),
        query_tokens=checked_length(path, settings, "query_maxlen", 32),
        document_tokens=checked_length(path, settings, "doc_maxlen", 220),
        mask_id=vocabulary.first_id_of("[MASK]", "<mask>"),
        attends_expansion=bool(settings.get("attend_to_mask_tokens", False)),
        skip_ids=vocabulary.ids_of(skipped),
    )
    return colbert_head(folder, config, hidden_size, late, ())


def read_pylate(
    folder: Path, config: Mapping[str, Any], hidden_size: int, layers: tuple[Path, ...]
) -> ColbertHead:
    """Read the head of a folder as PyLate stores it.

    Raises:
        FormatError: Its settings cannot be read, or name tokens that the tokenizer lacks.
    """
    path, settings = folder / MODEL_FILE, read_model_settings(folder)
    expands = settings.get("do_query_expansion", True) is not False
    words = settings.get("skiplist_words", list(string.punctuation))
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise FormatError(f"{path}: skiplist_words must be a list of texts")
    vocabulary = Vocabulary.read(folder)
    late = LateInteraction(
        query_marker=_marker(vocabulary, path, settings, "query_prefix", "[Q] "),
        document_marker=_marker(vocabulary, path, settings, "document_prefix", "[D] "),
        query_tokens=checked_length(path, settings, "query_length", 32) if expands else 0,
        document_tokens=checked_length(path, settings, "document_length", 180),
        mask_id=vocabulary.first_id_of("[MASK]", "<mask>") if expands else 0,
        attends_expansion=bool(settings.get("attend_to_expansion_tokens", False)),
        skip_ids=vocabulary.ids_of(words),
    )
    return colbert_head(folder, config, hidden_size, late, layers)


def colbert_head(
    folder: Path,
    config: Mapping[str, Any],
    hidden_size: int,
    late: LateInteraction,
    layers: tuple[Path, ...],
) -> ColbertHead:
    """Make the head of a late-interaction model, whose projection's Dense modules lie in these folders."""
    return ColbertHead(
        folder,
        config,
        hidden_size,
        "mean",
        kinds=(OutputKind.TOKENS,),
        late_interaction=late,
        prompts=ROLES,
        files=tuple(file for layer in layers for file in dense_files(layer)),
        layers=layers,
    )


def _marker(
    vocabulary: Vocabulary, path: Path, settings: Mapping[str, Any], name: str, default: str
) -> int | None:
    """Return the id of the token that marks queries or documents; None where there is none."""
    marker = settings.get(name, default)
    if marker is None or marker == "":
        return None
    if not isinstance(marker, str):
        raise FormatError(f"{path}: {name} must be a text")
    return vocabulary.first_id_of(marker, marker.strip())


def checked_length(path: Path, settings: Mapping[str, Any], name: str, default: int) -> int:
    """Return a length in tokens, which has room for the special tokens and one of the text."""
    length = settings.get(name)
    length = default if length is None else length
    if not isinstance(length, int) or isinstance(length, bool) or length < MIN_LENGTH:
        raise FormatError(f"{path}: {name} must be an integer of at least {MIN_LENGTH}")
    return length
