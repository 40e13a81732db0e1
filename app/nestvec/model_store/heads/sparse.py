"""Weights of terms: SPLADE over a masked language model's head, and queries by stored weights alone.

Source: SPLADE (arXiv:2109.10086); inference-free queries as in arXiv:2411.04403 and sentence-transformers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from typing_extensions import override

from nestvec.engine.backend import BackendFactory
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.pooler import Outputs, open_rows
from nestvec.errors import FormatError
from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.config.config_fields import positive
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.heads import Dense, Tail, dense_tail, export_vocabulary
from nestvec.model_store.heads.base import HEAD_FILE, Head
from nestvec.model_store.heads.inner import MODERNBERT_INNER, Inner
from nestvec.model_store.heads.vocabulary import Vocabulary
from nestvec.model_store.json_files import read_json

TERM_WEIGHTS: Final = "terms.npy"
LOGARITHMS: Final[Mapping[object, int]] = {"relu": 1, "log1p_relu": 2}


@dataclass(frozen=True, slots=True)
class MlmForm:
    """Names of a masked language model's head.

    Attributes:
        inner: The layer before the vocabulary.
        bias: Of the vocabulary.
        decoder: Of the vocabulary's weights, where they are not the word table's.
        words: The word table, below the encoder's own prefix.
    """

    inner: Inner
    bias: str
    decoder: str
    words: str = "embeddings.word_embeddings.weight"


_ACT: Final = ("hidden_act", "gelu")
_BERT: Final = MlmForm(
    Inner("cls.predictions.transform.dense", _ACT, norm="cls.predictions.transform.LayerNorm"),
    "cls.predictions.bias",
    "cls.predictions.decoder.weight",
)
_ROBERTA: Final = MlmForm(
    Inner("lm_head.dense", "gelu", norm="lm_head.layer_norm"),
    "lm_head.bias",
    "lm_head.decoder.weight",
)
FORMS: Final[Mapping[str, MlmForm]] = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": MlmForm(
        Inner("vocab_transform", ("activation", "gelu"), norm="vocab_layer_norm"),
        "vocab_projector.bias",
        "vocab_projector.weight",
    ),
    "modernbert": MlmForm(
        MODERNBERT_INNER, "decoder.bias", "decoder.weight", "embeddings.tok_embeddings.weight"
    ),
    "mpnet": _ROBERTA,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}


@dataclass(frozen=True, slots=True)
class SparseHead(Head):
    """SPLADE.

    Attributes:
        merge: Over tokens: "max" or "sum".
        logarithms: How often log(1 + ·) is taken.
        query_weights: File of each term's weight for queries, JSON by token; None where queries go through the model
            as documents do.
    """

    merge: str = "max"
    logarithms: int = 1
    query_weights: Path | None = None

    @property
    @override
    def dimensions(self) -> int:
        """See `Head`: one for each term."""
        return positive(self.config, "vocab_size")

    @override
    def tail(self) -> Tail | None:
        """See `Head`: up to the vocabulary."""
        with Weights(self.folder) as weights:
            return dense_tail([self._form().inner.read(weights, self.config, self.hidden_size)])

    @override
    def write(self, artefact: Path) -> None:
        """See `Head`."""
        form, terms = self._form(), positive(self.config, "vocab_size")
        with Weights(self.folder) as weights:
            words = form.decoder
            if words not in weights:  # tied to the word table
                prefix = getattr(ARCHITECTURES[architecture_of(self.config)], "prefix", "")
                words = next((n for n in (prefix + form.words, form.words) if n in weights), words)
            table = weights.get(words, (terms, self.hidden_size)).T
            bias = weights.get(form.bias, (terms,))
        export_vocabulary(
            Dense(table, bias), artefact / HEAD_FILE, merge=self.merge, logarithms=self.logarithms
        )
        if self.query_weights is not None:
            tokens = Vocabulary.read(self.folder)
            np.save(artefact / TERM_WEIGHTS, _by_token(self.query_weights, tokens, terms))

    @override
    def outputs(self, artefact: Path, open_backend: BackendFactory) -> Outputs:
        """See `Head`."""
        found: FloatArray | None = None
        if self.query_weights is not None:
            try:
                found = np.load(artefact / TERM_WEIGHTS, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise FormatError(f"{artefact / TERM_WEIGHTS}: cannot be read") from error
        return Outputs(
            self.pooling,
            vocabulary=open_rows(artefact / HEAD_FILE, open_backend),
            merge=self.merge,
            term_weights=found,
        )

    @override
    def summary(self) -> dict[str, Any]:
        """See `Head`."""
        return {"sparse": [self.merge, self.logarithms]}

    def _form(self) -> MlmForm:
        family = architecture_of(self.config)
        if family not in FORMS:
            raise FormatError(
                f"{self.folder}/config.json: no masked language model's head is known for '{family}'"
            )
        return FORMS[family]


def _by_token(path: Path, tokens: Vocabulary, terms: int) -> FloatArray:
    """Weights by a token's spelling, as arrays by id; tokens without one weigh nothing."""
    found = np.zeros(terms, np.float32)
    for token, weight in read_json(path).items():
        if not isinstance(weight, int | float) or isinstance(weight, bool):
            raise FormatError(f"{path}: weights must be numbers")
        place = tokens.find(token)
        if place is not None and place < terms:
            found[place] = weight
    if not np.isfinite(found).all():
        raise FormatError(f"{path}: holds NaN or infinity")
    return found
