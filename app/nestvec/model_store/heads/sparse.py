"""Term weights: SPLADE over a masked language model's head, and queries by stored weights alone.

Source: SPLADE (arXiv:2109.10086); inference-free queries as in arXiv:2411.04403 and sentence-transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from typing_extensions import override

from nestvec.engine.backend import BackendFactory
from nestvec.engine.model_spec import QueryLookup
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.pooler import Pooler, open_rows
from nestvec.errors import FormatError
from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.config.config_fields import positive
from nestvec.export.graph.weights import Weights, weight_files
from nestvec.export.layers.graph_heads import Dense, GraphHead, dense_head, export_vocabulary
from nestvec.model_store.heads.base import HEAD_FILE, ROLES, Head
from nestvec.model_store.heads.transform import MODERNBERT_TRANSFORM, HeadTransform
from nestvec.model_store.heads.vocabulary import Vocabulary
from nestvec.system.json_files import read_json

TERM_WEIGHTS: Final = "terms.npy"
# Prefixes of the authors' own code, by those of transformers.
HUB_PREFIXES: Final = {"gte.": "new."}
LOGARITHMS: Final[Mapping[object, int]] = {"relu": 1, "log1p_relu": 2}


@dataclass(frozen=True, slots=True)
class MlmForm:
    """Where a family's checkpoints keep the head of a masked language model.

    Attributes:
        transform: The layer before the vocabulary; None for none, as in causal models.
        bias: Name of the vocabulary's bias; "" for none.
        decoder: Name of the vocabulary's weights, where they are not tied to the word embeddings.
        word_embeddings: Name of the word embeddings, below the encoder's own prefix.
    """

    transform: HeadTransform | None
    bias: str
    decoder: str
    word_embeddings: str = "embeddings.word_embeddings.weight"


_ACT: Final = ("hidden_act", "gelu")
_BERT: Final = MlmForm(
    HeadTransform(
        "cls.predictions.transform.dense", _ACT, norm="cls.predictions.transform.LayerNorm"
    ),
    "cls.predictions.bias",
    "cls.predictions.decoder.weight",
)
_ROBERTA: Final = MlmForm(
    HeadTransform("lm_head.dense", "gelu", norm="lm_head.layer_norm"),
    "lm_head.bias",
    "lm_head.decoder.weight",
)
FORMS: Final[Mapping[str, MlmForm]] = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": MlmForm(
        HeadTransform("vocab_transform", ("activation", "gelu"), norm="vocab_layer_norm"),
        "vocab_projector.bias",
        "vocab_projector.weight",
    ),
    "gte": MlmForm(
        HeadTransform("lm_head.dense", _ACT, norm="lm_head.norm", other_norm="lm_head.layer_norm"),
        "lm_head.decoder.bias",
        "lm_head.decoder.weight",
    ),
    "modernbert": MlmForm(
        MODERNBERT_TRANSFORM, "decoder.bias", "decoder.weight", "embeddings.tok_embeddings.weight"
    ),
    "mpnet": _ROBERTA,
    # SPLADE over a causal model (arXiv:2603.22008), whose tokens attend to all if config.json or a card says so.
    "qwen3": MlmForm(None, "", "lm_head.weight", "embed_tokens.weight"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}


@dataclass(frozen=True, slots=True)
class SparseHead(Head):
    """A SPLADE head, which weighs every term of the vocabulary.

    Attributes:
        merge: How the weights of a text's tokens become one: "max" or "sum".
        logarithms: How often log(1 + ·) is taken of a weight.
        query_weights: Each term's weight in queries: a JSON file by token, or a folder of safetensors by id; None where
            queries go through the model as documents do.
    """

    merge: str = "max"
    logarithms: int = 1
    query_weights: Path | None = None

    def with_query_file(self, path: Path) -> Self:
        """Return the head with a file of queries' weights by token, as OpenSearch publishes it: `idf.json`."""
        return replace(
            self, query_weights=path, query_lookup=QueryLookup(), prompts=ROLES, files=(path,)
        )

    def with_query_table(self, folder: Path, *, is_default: bool) -> Self:
        """Return the head with the weights of a SparseStaticEmbedding module for queries.

        Args:
            folder: The module's folder.
            is_default: Whether texts are queries where a call says nothing of their role.

        Raises:
            FormatError: It has no weights that can be read.
        """
        files = weight_files(folder)
        if not files:
            raise FormatError(f"{folder}: no model.safetensors with the weights of queries")
        return replace(
            self,
            query_weights=folder,
            query_lookup=QueryLookup(adds_special_tokens=False, is_default=is_default),
            prompts=ROLES,
            files=files,
        )

    @property
    @override
    def dimensions(self) -> int:
        """Number of terms of the vocabulary."""
        return positive(self.config, "vocab_size")

    @override
    def graph_head(self) -> GraphHead | None:
        """Return the layer before the vocabulary, [T, H]; None where there is none.

        Raises:
            FormatError: A tensor is missing or of another shape.
        """
        transform = self._form().transform
        if transform is None:
            return None
        with Weights(self.folder) as weights:
            return dense_head([transform.read(weights, self.config, self.hidden_size)])

    @override
    def write(self, artefact: Path) -> None:
        """Write the vocabulary as a graph, [n, H] to [1, terms], and the query weights where there are any.

        Raises:
            FormatError: A tensor is missing or of another shape, or the query weights cannot be read.
            OSError: The disk is full or read-only.
        """
        form, terms = self._form(), positive(self.config, "vocab_size")
        with Weights(self.folder) as weights:
            name = form.decoder
            if name not in weights:  # tied to the word embeddings
                prefix = getattr(ARCHITECTURES[architecture_of(self.config)], "prefix", "")
                tied = [
                    each + form.word_embeddings
                    for each in (prefix, "", HUB_PREFIXES.get(prefix, ""))
                ]
                name = next((n for n in tied if n in weights), name)
            table = weights.get(name, (terms, self.hidden_size)).T
            bias = weights.get(form.bias, (terms,)) if form.bias else np.zeros(terms, np.float32)
        export_vocabulary(
            Dense(table, bias), artefact / HEAD_FILE, merge=self.merge, logarithms=self.logarithms
        )
        if self.query_weights is not None:
            if self.query_weights.is_dir():
                weights_by_id = _table(self.query_weights, terms)
            else:
                vocabulary = Vocabulary.read(self.folder)
                weights_by_id = _weights_by_id(self.query_weights, vocabulary, terms)
            np.save(artefact / TERM_WEIGHTS, weights_by_id)

    @override
    def pooler(self, artefact: Path, open_backend: BackendFactory) -> Pooler:
        """Return a pooler that sends states through the vocabulary, and knows the query weights.

        Raises:
            FormatError: A file cannot be opened.
        """
        term_weights: FloatArray | None = None
        if self.query_weights is not None:
            try:
                term_weights = np.load(artefact / TERM_WEIGHTS, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise FormatError(f"{artefact / TERM_WEIGHTS}: cannot be read") from error
        return Pooler(
            self.pooling,
            vocabulary_head=open_rows(artefact / HEAD_FILE, open_backend),
            merge=self.merge,
            term_weights=term_weights,
        )

    @override
    def summary(self) -> dict[str, Any]:
        """Return how weights are merged and how many logarithms are taken, and how a Router's queries are weighed."""
        lookup = self.query_lookup
        own = {} if lookup in (None, QueryLookup()) else {"queries": repr(lookup)}
        return {"sparse": [self.merge, self.logarithms], **own}

    def _form(self) -> MlmForm:
        family = architecture_of(self.config)
        if family not in FORMS:
            raise FormatError(
                f"{self.folder}/config.json: no masked language model's head is known for '{family}'"
            )
        return FORMS[family]


def _table(folder: Path, terms: int) -> FloatArray:
    """Read a SparseStaticEmbedding's weights by id, [terms]; ids beyond its vocabulary weigh nothing."""
    with Weights(folder) as weights:
        rows = weights.shape("weight")[0]
        if rows > terms:
            raise FormatError(f"{folder}: weight: {rows} terms do not fit the {terms} of documents")
        table = np.zeros(terms, np.float32)
        table[:rows] = weights.get("weight", (rows,))
    if not np.isfinite(table).all():
        raise FormatError(f"{folder}: weight: holds NaN or infinity")
    return table


def _weights_by_id(path: Path, vocabulary: Vocabulary, terms: int) -> FloatArray:
    """Read a file of weights by a token's spelling into an array by id, [terms]; other tokens weigh nothing."""
    weights = np.zeros(terms, np.float32)
    for token, weight in read_json(path).items():
        if not isinstance(weight, int | float) or isinstance(weight, bool):
            raise FormatError(f"{path}: weights must be numbers")
        token_id = vocabulary.id_of(token)
        if token_id is not None and token_id < terms:
            weights[token_id] = weight
    if not np.isfinite(weights).all():
        raise FormatError(f"{path}: holds NaN or infinity")
    return weights
