"""Sequence classifiers and cross-encoders: labels' scores of a text or a pair.

Source: the `…ForSequenceClassification` classes of transformers; activations as in sentence-transformers' CrossEncoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from typing_extensions import override

from nestvec.engine.backend import BackendFactory
from nestvec.engine.types import OutputKind
from nestvec.engine.vectors.pooler import Outputs, open_rows
from nestvec.errors import FormatError
from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.heads import export_rows, read_dense
from nestvec.model_store.heads.base import HEAD_FILE, Head
from nestvec.model_store.heads.inner import MODERNBERT_INNER, Inner

SUFFIX: Final = "ForSequenceClassification"


@dataclass(frozen=True, slots=True)
class Form:
    """How a family classifies.

    Attributes:
        scores: Its last layer.
        inner: Layer before it, below the encoder's own name or at the root; None for none.
        pooling: What it takes of the states.
        pooling_field: Of config.json, and what it is where that does not say; "late" pools scores of tokens.
        has_bias: Whether the last layer must have a bias.
    """

    scores: str
    inner: Inner | None = None
    pooling: str = "cls"
    pooling_field: tuple[str, str] | None = None
    has_bias: bool = True


_BERT: Final = Form("classifier", Inner("pooler.dense"))
_ROBERTA: Final = Form("classifier.out_proj", Inner("classifier.dense"))
_DECODER: Final = Form("score", pooling="last_token", has_bias=False)
FORMS: Final[Mapping[str, Form]] = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "deberta-v2": Form("classifier", Inner("pooler.dense", ("pooler_hidden_act", "gelu"))),
    "distilbert": Form("classifier", Inner("pre_classifier", "relu")),
    "electra": Form("classifier.out_proj", Inner("classifier.dense", "gelu")),
    "eurobert": Form(
        "classifier", Inner("dense", "gelu"), pooling_field=("classifier_pooling", "late")
    ),
    "gemma3_text": _DECODER,
    "gte": _BERT,
    "jina_bert": _BERT,
    "jina_embeddings_v3": _ROBERTA,
    "llama": _DECODER,
    "mistral": _DECODER,
    "modernbert": Form("classifier", MODERNBERT_INNER, pooling_field=("classifier_pooling", "cls")),
    "mpnet": _ROBERTA,
    "nomic_bert": _BERT,
    "qwen2": _DECODER,
    "qwen3": _DECODER,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
POOLINGS: Final[Mapping[object, str]] = {
    "cls": "cls",
    "bos": "cls",
    "mean": "mean",
    "late": "mean",
}
ACTIVATIONS: Final[Mapping[str, str]] = {
    "Identity": "identity",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
}


@dataclass(frozen=True, slots=True)
class ClassifierHead(Head):
    """Labels' scores, before any activation.

    Attributes:
        pools_last: Whether each token is scored.
    """

    pools_last: bool = False

    @classmethod
    def read(cls, folder: Path, config: Mapping[str, Any], hidden_size: int) -> Self:
        """Take it out of a folder whose config.json names such a class.

        Raises:
            FormatError: We do not know the family's head, or the file asks for another.
        """
        family = architecture_of(config)
        if family not in FORMS:
            raise FormatError(f"{folder}/config.json: no classifier is known for '{family}'")
        labels = read_labels(config)
        return cls(
            folder=folder,
            config=config,
            hidden_size=hidden_size,
            pooling=_pooling(FORMS[family], config),
            kinds=(OutputKind.LABELS,),
            labels=labels,
            activation=read_activation(config, len(labels)),
            asks_types=_types(config) > 1,
            pools_last=_said_pooling(FORMS[family], config) == "late",
        )

    @property
    @override
    def dimensions(self) -> int:
        """See `Head`."""
        return len(self.labels)

    @override
    def write(self, artefact: Path) -> None:
        """See `Head`."""
        family = architecture_of(self.config)
        form, size = FORMS[family], self.hidden_size
        prefix = getattr(ARCHITECTURES[family], "prefix", "")
        layers = []
        with Weights(self.folder) as weights:
            if form.inner is not None:
                layers.append(form.inner.read(weights, self.config, size, (prefix, "new.")))
            scores = read_dense(
                weights, [form.scores], size, self.dimensions, needs_bias=form.has_bias
            )
            layers.append(scores)
        export_rows(layers, artefact / HEAD_FILE)

    @override
    def outputs(self, artefact: Path, open_backend: BackendFactory) -> Outputs:
        """See `Head`."""
        head = open_rows(artefact / HEAD_FILE, open_backend)
        return Outputs(self.pooling, head=head, pools_last=self.pools_last)

    @override
    def summary(self) -> dict[str, Any]:
        """See `Head`."""
        return {"classifier": list(self.labels), "pools_last": self.pools_last}


def is_classifier(config: Mapping[str, Any]) -> bool:
    """Whether a config.json names such a class."""
    named = config.get("architectures")
    return isinstance(named, list) and any(str(one).endswith(SUFFIX) for one in named)


def read_labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a config.json, in the order of the scores.

    Raises:
        FormatError: They are not numbered from 0.
    """
    named = config.get("id2label")
    if isinstance(named, dict) and named:
        try:
            numbered = {int(number): str(label) for number, label in named.items()}
        except ValueError:
            numbered = {}
        if sorted(numbered) != list(range(len(named))):
            raise FormatError("config.json: 'id2label' must number labels from 0")
        return tuple(numbered[number] for number in range(len(numbered)))
    count = config.get("num_labels", 2)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise FormatError("config.json: 'num_labels' must be a positive integer")
    return tuple(f"LABEL_{number}" for number in range(count))


def read_activation(config: Mapping[str, Any], labels: int) -> str:
    """What makes probabilities of scores: as the file says, else as sentence-transformers and TEI do unasked.

    Raises:
        FormatError: It says something that we do not have.
    """
    own = config.get("sentence_transformers")
    said = own.get("activation_fn") if isinstance(own, dict) else None
    said = said or config.get("sbert_ce_default_activation_function")
    if said is not None:
        name = str(said).rsplit(".", 1)[-1]
        if name not in ACTIVATIONS:
            raise FormatError(f"config.json: activation '{said}' is not supported")
        return ACTIVATIONS[name]
    is_multi = config.get("problem_type") == "multi_label_classification"
    return "sigmoid" if labels == 1 or is_multi else "softmax"


def _pooling(form: Form, config: Mapping[str, Any]) -> str:
    said = _said_pooling(form, config)
    return form.pooling if said is None else POOLINGS[said]


def _said_pooling(form: Form, config: Mapping[str, Any]) -> str | None:
    """As config.json says it; None where the family has one way."""
    if form.pooling_field is None:
        return None
    name, default = form.pooling_field
    said = config.get(name, default)
    if not isinstance(said, str) or said not in POOLINGS:
        raise FormatError(f"config.json: {name} '{said}' is not supported")
    return said


def _types(config: Mapping[str, Any]) -> int:
    """Rows of the token type table; the families that have none do not say a number."""
    found = config.get("type_vocab_size")
    return found if isinstance(found, int) and not isinstance(found, bool) else 0
