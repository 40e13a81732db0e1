"""Re-rankers that answer yes or no: how much likelier a causal model's next token is "yes" than "no".

The softmax over two logits is the sigmoid of their difference, and that is one row: the difference of the two rows of
the language model's head. So such a model is a classifier with one label, and its vocabulary is never computed.

Source: `LogitScore` of sentence-transformers 6.2; Qwen3-Reranker (arXiv:2506.05176), section 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from typing_extensions import override

from nestvec.engine.backend import BackendFactory
from nestvec.engine.types import OutputKind
from nestvec.engine.vectors.pooler import Pooler, open_rows
from nestvec.errors import FormatError
from nestvec.export.architectures import architecture_of
from nestvec.export.graph.types import Float32Array
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.graph_heads import Dense, export_rows
from nestvec.model_store.heads.base import HEAD_FILE, Head
from nestvec.model_store.heads.classifier import FORMS, read_activation
from nestvec.model_store.heads.vocabulary import Vocabulary

LOGIT_SCORE: Final = "LogitScore"  # the module's name
POOLING: Final = "last_token"
# what the module reads, unless its config.json says another name
CAUSAL_LOGITS: Final = "causal_logits"
HEAD: Final = "lm_head"
EMBEDDINGS: Final = ("model.embed_tokens", "embed_tokens")
# Without `_id`, as a card spells them.
TOKEN_FIELDS: Final = ("true_token", "false_token")


@dataclass(frozen=True, slots=True)
class LogitScoreHead(Head):
    """A head that gives the difference of two tokens' logits behind the last token, or one token's logit.

    Attributes:
        true_id: The token that means relevant.
        false_id: The token that means the opposite; None where only the first one's logit is the score.
    """

    true_id: int = 0
    false_id: int | None = None

    @classmethod
    def read(
        cls,
        folder: Path,
        config: Mapping[str, Any],
        hidden_size: int,
        tokens: Mapping[str, Any],
        settings: Mapping[str, Any],
    ) -> Self:
        """Read the head of a causal language model.

        Args:
            folder: The model's folder.
            config: Its config.json.
            hidden_size: Columns of the decoder's states, H.
            tokens: `true_token_id` and `false_token_id` of a LogitScore module; or a card's `true_token` and
                `false_token`, by their spelling or their ids.
            settings: The folder's config_sentence_transformers.json; empty for none.

        Raises:
            FormatError: The family is no decoder whose head is known, or a token is none of the vocabulary.
        """
        family = architecture_of(config)
        form = FORMS.get(family)
        if form is None or form.pooling != POOLING:
            raise FormatError(
                f"{folder}/config.json: no head of a causal language model is known for '{family}'"
            )
        if config.get("final_logit_softcapping") is not None:
            raise FormatError(
                f"{folder}/config.json: final_logit_softcapping: a capped logit is no row of the head"
            )
        true_id, false_id = (_token_id(folder, config, tokens, name) for name in TOKEN_FIELDS)
        if true_id is None or true_id == false_id:
            raise FormatError(f"{folder}: a score needs a true token, and another false one")
        return cls(
            folder=folder,
            config=config,
            hidden_size=hidden_size,
            pooling=POOLING,
            kinds=(OutputKind.LABELS,),
            labels=("LABEL_0",),  # as transformers names the only label of a re-ranker
            activation=read_activation(config, 1, settings),
            true_id=true_id,
            false_id=false_id,
        )

    @property
    @override
    def dimensions(self) -> int:
        """Number of labels."""
        return len(self.labels)

    @override
    def write(self, artefact: Path) -> None:
        """Write the difference of two rows as a graph, [B, H] to [B, 1].

        Raises:
            FormatError: A tensor is missing or of another shape.
            OSError: The disk is full or read-only.
        """
        with Weights(self.folder) as weights:
            name = self._table(weights)
            row = weights.row(f"{name}.weight", self.true_id)
            bias = _bias(weights, name, self.true_id)
            if self.false_id is not None:
                row = row - weights.row(f"{name}.weight", self.false_id)
                bias = bias - _bias(weights, name, self.false_id)
        if len(row) != self.hidden_size:
            raise FormatError(
                f"{self.folder}: tensor '{name}.weight' has rows of {len(row)}, the states have {self.hidden_size}"
            )
        layer = Dense(row[:, None], np.array([bias], np.float32))
        export_rows([layer], artefact / HEAD_FILE)

    @override
    def pooler(self, artefact: Path, open_backend: BackendFactory) -> Pooler:
        """Return a pooler that scores the state of the last token."""
        return Pooler(self.pooling, head=open_rows(artefact / HEAD_FILE, open_backend))

    @override
    def summary(self) -> dict[str, Any]:
        """Return which tokens are compared."""
        return {"logit_score": [self.true_id, self.false_id]}

    def _table(self, weights: Weights) -> str:
        """Return the name of the head's matrix: its own, or the embeddings where they are one."""
        is_tied = self.config.get("tie_word_embeddings") is True
        if f"{HEAD}.weight" in weights and not is_tied:
            return HEAD
        for name in EMBEDDINGS:
            if f"{name}.weight" in weights:
                return name
        raise FormatError(
            f"{self.folder}: no tensor '{HEAD}.weight' and no '{EMBEDDINGS[0]}.weight'"
        )


def _bias(weights: Weights, name: str, row: int) -> np.float32:
    """Return the bias of a row; 0 where there is none."""
    if f"{name}.bias" not in weights:
        return np.float32(0)
    bias: Float32Array = weights.get(f"{name}.bias", weights.shape(f"{name}.weight")[:1])
    return np.float32(bias[row])


def _token_id(
    folder: Path, config: Mapping[str, Any], tokens: Mapping[str, Any], name: str
) -> int | None:
    """Read a token's id; None where none is said.

    Raises:
        FormatError: It is no token of the vocabulary.
    """
    value = tokens.get(f"{name}_id", tokens.get(name))
    if value is None:
        return None
    if isinstance(value, str):
        return Vocabulary.read(folder).first_id_of(value)
    rows = config.get("vocab_size")
    if not isinstance(value, int) or isinstance(value, bool) or not isinstance(rows, int):
        raise FormatError(f"{folder}: {name}: must be a token or its id")
    if not 0 <= value < rows:
        raise FormatError(f"{folder}: {name}: {value} is no id of {rows} tokens")
    return value
