"""Weights of terms: SPLADE over a masked language model's head, and queries by stored weights alone.

Source: SPLADE (arXiv:2109.10086); inference-free queries as in arXiv:2411.04403 and sentence-transformers.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer as LibraryTokenizer
from typing_extensions import override

from app.engine.backend import BackendFactory
from app.engine.outputs import Outputs, open_rows
from app.engine.types import FloatArray
from app.errors import FormatError
from app.export.architectures import ARCHITECTURES, architecture_of
from app.export.config_fields import positive, positive_number
from app.export.heads import (
    Dense,
    Tail,
    check_activation,
    dense_tail,
    export_vocabulary,
    read_dense,
)
from app.export.weights import Weights
from app.packages.heads.base import HEAD_FILE, Head
from app.packages.json_files import read_json

TERM_WEIGHTS: Final = "terms.npy"
LOGARITHMS: Final[Mapping[object, int]] = {"relu": 1, "log1p_relu": 2}


@dataclass(frozen=True, slots=True)
class MlmForm:
    """Names of a masked language model's head.

    Attributes:
        dense: The layer before the vocabulary; `norm` is behind it.
        bias: Of the vocabulary.
        decoder: Of the vocabulary's weights, where they are not the word table's.
        words: The word table, below the encoder's own prefix.
        act: What follows the dense layer; "" for the configuration's `hidden_act`.
    """

    dense: str
    norm: str
    bias: str
    decoder: str
    words: str = "embeddings.word_embeddings.weight"
    act: str = ""


_BERT: Final = MlmForm(
    "cls.predictions.transform.dense",
    "cls.predictions.transform.LayerNorm",
    "cls.predictions.bias",
    "cls.predictions.decoder.weight",
)
_ROBERTA: Final = MlmForm(
    "lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder.weight", act="gelu"
)
FORMS: Final[Mapping[str, MlmForm]] = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": MlmForm(
        "vocab_transform", "vocab_layer_norm", "vocab_projector.bias", "vocab_projector.weight"
    ),
    "modernbert": MlmForm(
        "head.dense",
        "head.norm",
        "decoder.bias",
        "decoder.weight",
        "embeddings.tok_embeddings.weight",
        "config:classifier_activation:gelu",
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
        query_weights: File of each term's weight for queries, JSON by token or safetensors; None where queries go
            through the model as documents do.
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
        form, size = self._form(), self.hidden_size
        needs_bias = architecture_of(self.config) != "modernbert"
        with Weights(self.folder) as weights:
            inner = read_dense(
                weights, [form.dense], size, size, act=self._act(form), needs_bias=needs_bias
            )
            norm = self._norm(form, weights)
        return dense_tail([Dense(inner.weight, inner.bias, inner.activation, norm)])

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
            np.save(artefact / TERM_WEIGHTS, self._query_weights(terms))

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

    def _act(self, form: MlmForm) -> str:
        field, default = "hidden_act", "gelu"
        if architecture_of(self.config) == "distilbert":
            field = "activation"
        if form.act.startswith("config:"):
            _, field, default = form.act.split(":")
        elif form.act:
            return form.act
        return check_activation(str(self.config.get(field, default)), f"{self.folder}: {field}")

    def _norm(self, form: MlmForm, weights: Weights) -> tuple[FloatArray, FloatArray, float]:
        family, size = architecture_of(self.config), (self.hidden_size,)
        scale = weights.get(f"{form.norm}.weight", size)
        name = f"{form.norm}.bias"
        is_bare = family == "modernbert" and name not in weights
        bias = np.zeros(size, np.float32) if is_bare else weights.get(name, size)
        field = "norm_eps" if family == "modernbert" else "layer_norm_eps"
        return scale, bias, positive_number(self.config, field, 1e-12)

    def _query_weights(self, terms: int) -> FloatArray:
        path = self.query_weights
        assert path is not None  # noqa: S101 - asked for only where it is set
        if path.suffix == ".json":
            return _by_token(path, self.folder / "tokenizer.json", terms)
        with Weights(path.parent) as weights:
            return weights.get("weight", (terms,))


def _by_token(path: Path, tokenizer: Path, terms: int) -> FloatArray:
    """Weights by a token's spelling, as arrays by id; tokens without one weigh nothing."""
    named = read_json(path)
    try:
        ids = json.loads(LibraryTokenizer.from_file(str(tokenizer)).to_str())["model"]["vocab"]
    except Exception as error:
        raise FormatError(f"{tokenizer}: not a readable tokenizer.json ({error})") from error
    found = np.zeros(terms, np.float32)
    for token, weight in named.items():
        place = ids.get(token) if isinstance(ids, dict) else None
        if not isinstance(weight, int | float) or isinstance(weight, bool):
            raise FormatError(f"{path}: weights must be numbers")
        if place is not None and place < terms:
            found[place] = weight
    if not np.isfinite(found).all():
        raise FormatError(f"{path}: holds NaN or infinity")
    return found
