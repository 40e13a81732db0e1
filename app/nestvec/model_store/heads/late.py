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
from nestvec.engine.vectors.pooler import Outputs
from nestvec.errors import FormatError
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.heads import Dense, Tail, dense_tail, read_dense, side_by_side
from nestvec.model_store.heads.base import Head
from nestvec.model_store.heads.dense import dense_sizes, read_module
from nestvec.model_store.heads.vocabulary import Vocabulary
from nestvec.model_store.json_files import read_json

AUTHORS_CLASS: Final = "HF_ColBERT"
AUTHORS_FILE: Final = "artifact.metadata"
ROLES: Final[Mapping[str, str]] = {"query": "", "document": ""}
M3_SPARSE: Final = "sparse_linear.safetensors"
M3_TOKENS: Final = "colbert_linear.safetensors"
M3_SPECIAL: Final = ("<s>", "</s>", "<pad>", "<unk>", "[CLS]", "[SEP]", "[PAD]", "[UNK]")
M3_PARTS: Final = ((M3_TOKENS, "colbert_linear"), (M3_SPARSE, "sparse_linear"))


@dataclass(frozen=True, slots=True)
class ColbertHead(Head):
    """Token states projected to few dimensions.

    Attributes:
        module: Folder of the projection; None where it is `linear` beside the encoder.
    """

    module: Path | None = None

    @property
    @override
    def dimensions(self) -> int:
        """See `Head`."""
        return self.columns

    @property
    @override
    def columns(self) -> int:
        """See `Head`."""
        if self.module is not None:
            return dense_sizes(self.module)[1]
        with Weights(self.folder) as weights:
            return weights.shape("linear.weight")[0]

    @override
    def tail(self) -> Tail | None:
        """See `Head`."""
        if self.module is not None:
            return dense_tail([read_module(self.module)])
        with Weights(self.folder) as weights:
            layer = read_dense(weights, ["linear"], self.hidden_size, None, needs_bias=False)
        return dense_tail([layer])

    @override
    def summary(self) -> dict[str, Any]:
        """See `Head`."""
        return {"late_interaction": repr(self.late_interaction)}


@dataclass(frozen=True, slots=True)
class M3Head(Head):
    """A vector, token vectors and term weights of one pass."""

    @property
    @override
    def columns(self) -> int:
        """See `Head`: the states, then what each layer makes of them."""
        return self.hidden_size + sum(len(part.bias) for part in self._parts())

    @override
    def tail(self) -> Tail | None:
        """See `Head`."""
        return side_by_side(self._parts())

    @override
    def outputs(self, artefact: Path, open_backend: BackendFactory) -> Outputs:
        """See `Head`."""
        end = self.columns - 1
        return Outputs(
            self.pooling,
            states=self.hidden_size,
            tokens=slice(self.hidden_size, end),
            lexical=end,
            special_ids=Vocabulary.read(self.folder).those_of(M3_SPECIAL),
        )

    @override
    def summary(self) -> dict[str, Any]:
        """See `Head`."""
        return {"m3": True}

    def _parts(self) -> list[Dense]:
        found = []
        for file, name in M3_PARTS:
            with Weights(self.folder, (self.folder / file,)) as weights:
                # As `torch.save(layer.state_dict())` names them, or under the layer's own name.
                layer = "" if "weight" in weights else f"{name}."
                out = 1 if file == M3_SPARSE else weights.shape(f"{layer}weight")[0]
                size = self.hidden_size
                weight = weights.get(f"{layer}weight", (out, size)).T
                found.append(Dense(weight, weights.get(f"{layer}bias", (out,))))
        return found


def is_m3(folder: Path) -> bool:
    """Whether a folder has BGE-M3's two further layers, in a form that can be read."""
    return all((folder / file).is_file() for file, _ in M3_PARTS)


def read_m3(folder: Path, config: Mapping[str, Any], hidden_size: int, pooling: str) -> M3Head:
    """A folder with BGE-M3's layers."""
    return M3Head(
        folder,
        config,
        hidden_size,
        pooling,
        kinds=(OutputKind.DENSE, OutputKind.SPARSE, OutputKind.TOKENS),
        late_interaction=LateInteraction(skips_first=True),
        prompts=ROLES,
        files=tuple(folder / file for file, _ in M3_PARTS),
    )


def is_authors_colbert(config: Mapping[str, Any]) -> bool:
    """Whether a config.json names the class of ColBERT's authors."""
    named = config.get("architectures")
    return isinstance(named, list) and AUTHORS_CLASS in named


def read_authors_colbert(folder: Path, config: Mapping[str, Any], hidden_size: int) -> ColbertHead:
    """A folder as ColBERT's own code stores it.

    Raises:
        FormatError: Its settings cannot be read, or name tokens that the tokenizer lacks.
    """
    path = folder / AUTHORS_FILE
    said = read_json(path) if path.is_file() else {}
    tokens = Vocabulary.read(folder)
    skipped = string.punctuation if said.get("mask_punctuation", True) else ""
    late = LateInteraction(
        query_marker=tokens.first_of(str(said.get("query_token_id", "[unused0]"))),
        document_marker=tokens.first_of(str(said.get("doc_token_id", "[unused1]"))),
        query_tokens=_count(path, said, "query_maxlen", 32),
        document_tokens=_count(path, said, "doc_maxlen", 220),
        mask_id=tokens.first_of("[MASK]", "<mask>"),
        attends_expansion=bool(said.get("attend_to_mask_tokens", False)),
        skip_ids=tokens.those_of(skipped),
    )
    return _colbert(folder, config, hidden_size, late, None)


def read_pylate(
    folder: Path, config: Mapping[str, Any], hidden_size: int, module: Path
) -> ColbertHead:
    """A folder as PyLate stores it.

    Raises:
        FormatError: Its settings cannot be read, or name tokens that the tokenizer lacks.
    """
    path = folder / "config_sentence_transformers.json"
    said = read_json(path) if path.is_file() else {}
    expands = said.get("do_query_expansion", True) is not False
    words = said.get("skiplist_words", list(string.punctuation))
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise FormatError(f"{path}: skiplist_words must be a list of texts")
    tokens = Vocabulary.read(folder)
    late = LateInteraction(
        query_marker=_marker(tokens, path, said, "query_prefix", "[Q] "),
        document_marker=_marker(tokens, path, said, "document_prefix", "[D] "),
        query_tokens=_count(path, said, "query_length", 32) if expands else 0,
        document_tokens=_count(path, said, "document_length", 180),
        mask_id=tokens.first_of("[MASK]", "<mask>") if expands else 0,
        attends_expansion=bool(said.get("attend_to_expansion_tokens", False)),
        skip_ids=tokens.those_of(words),
    )
    return _colbert(folder, config, hidden_size, late, module)


def _colbert(
    folder: Path,
    config: Mapping[str, Any],
    hidden_size: int,
    late: LateInteraction,
    module: Path | None,
) -> ColbertHead:
    return ColbertHead(
        folder,
        config,
        hidden_size,
        "mean",
        kinds=(OutputKind.TOKENS,),
        late_interaction=late,
        prompts=ROLES,
        files=(module / "model.safetensors",) if module is not None else (),
        module=module,
    )


def _marker(
    tokens: Vocabulary, path: Path, said: Mapping[str, Any], name: str, default: str
) -> int | None:
    """The token that marks a side; a null is none."""
    given = said.get(name, default)
    if given is None or given == "":
        return None
    if not isinstance(given, str):
        raise FormatError(f"{path}: {name} must be a text")
    return tokens.first_of(given, given.strip())


def _count(path: Path, said: Mapping[str, Any], name: str, default: int) -> int:
    found = said.get(name)
    found = default if found is None else found
    if not isinstance(found, int) or isinstance(found, bool) or found < 4:  # noqa: PLR2004 - special tokens and one
        raise FormatError(f"{path}: {name} must be an integer of at least 4")
    return found
