"""Sequence classifiers and cross-encoders: the scores of labels for a text or a pair.

Source: the `…ForSequenceClassification` classes of transformers; activations as in sentence-transformers' CrossEncoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from typing_extensions import override

from nestvec.engine.backend import BackendFactory
from nestvec.engine.types import OutputKind
from nestvec.engine.vectors.pooler import Pooler, open_rows
from nestvec.errors import FormatError
from nestvec.export.architectures import ARCHITECTURES, architecture_of
from nestvec.export.config.config_fields import positive_number
from nestvec.export.graph.weights import Weights
from nestvec.export.layers.graph_heads import export_rows, read_dense
from nestvec.model_store.heads.base import HEAD_FILE, Head
from nestvec.model_store.heads.transform import MODERNBERT_TRANSFORM, HeadTransform

SUFFIX: Final = "ForSequenceClassification"
POOLINGS: Final[Mapping[object, str]] = {
    "cls": "cls",
    "bos": "cls",
    "mean": "mean",
    "late": "mean",
}
# Names of NeMo's bidirectional Llama.
NEMO_POOLINGS: Final[Mapping[object, str]] = {"avg": "mean", "cls": "cls", "last": "last_token"}


@dataclass(frozen=True, slots=True)
class ClassifierForm:
    """Where a family's checkpoints keep a classifier, and how it pools.

    Attributes:
        scores: Name of the last layer, which gives the scores.
        transform: The layer before it, below the encoder's own name or at the root; None for none.
        pooling: How states are pooled, a key of `pooling.POOLINGS`.
        pooling_field: Field of config.json that says the pooling, and its default; "late" pools the scores of tokens.
            None where the family has one way.
        poolings: Keys of `pooling.POOLINGS` by what that field may say.
        has_bias: Whether the last layer must have a bias.
        temperature_field: Field of config.json with what scores are divided by; "" for nothing.
    """

    scores: str
    transform: HeadTransform | None = None
    pooling: str = "cls"
    pooling_field: tuple[str, str] | None = None
    poolings: Mapping[object, str] = field(default_factory=lambda: POOLINGS)
    has_bias: bool = True
    temperature_field: str = ""


_BERT: Final = ClassifierForm("classifier", HeadTransform("pooler.dense"))
_ROBERTA: Final = ClassifierForm("classifier.out_proj", HeadTransform("classifier.dense"))
_DECODER: Final = ClassifierForm("score", pooling="last_token", has_bias=False)
FORMS: Final[Mapping[str, ClassifierForm]] = {
    "albert": ClassifierForm("classifier", HeadTransform("pooler")),
    "bert": _BERT,
    "bloom": _DECODER,
    "camembert": _ROBERTA,
    "deberta-v2": ClassifierForm(
        "classifier", HeadTransform("pooler.dense", ("pooler_hidden_act", "gelu"))
    ),
    "distilbert": ClassifierForm("classifier", HeadTransform("pre_classifier", "relu")),
    "electra": ClassifierForm("classifier.out_proj", HeadTransform("classifier.dense", "gelu")),
    "ernie": _BERT,
    "eurobert": ClassifierForm(
        "classifier", HeadTransform("dense", "gelu"), pooling_field=("classifier_pooling", "late")
    ),
    "gemma": _DECODER,
    "gemma2": _DECODER,
    "gemma3_text": _DECODER,
    "gte": _BERT,
    "jina_bert": _BERT,
    "jina_embeddings_v3": _ROBERTA,
    "llama": _DECODER,
    "llama_bidirec": ClassifierForm(
        "score",
        pooling_field=("pooling", "avg"),
        poolings=NEMO_POOLINGS,
        has_bias=False,
        temperature_field="temperature",
    ),
    "mistral": _DECODER,
    "modernbert": ClassifierForm(
        "classifier", MODERNBERT_TRANSFORM, pooling_field=("classifier_pooling", "cls")
    ),
    "mpnet": _ROBERTA,
    "nomic_bert": _BERT,
    "phi3": _DECODER,
    "qwen2": _DECODER,
    "qwen3": _DECODER,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
ACTIVATIONS: Final[Mapping[str, str]] = {
    "Identity": "identity",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
}


@dataclass(frozen=True, slots=True)
class ClassifierHead(Head):
    """A head that gives the scores of labels, before any activation.

    Attributes:
        head_before_pooling: Whether each token is scored, and the scores are pooled.
    """

    head_before_pooling: bool = False

    @classmethod
    def read(
        cls,
        folder: Path,
        config: Mapping[str, Any],
        hidden_size: int,
        settings: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read the head of a folder whose config.json names a `…ForSequenceClassification` class.

        Args:
            folder: The model's folder.
            config: Its config.json.
            hidden_size: Columns of the encoder's states, H.
            settings: Its config_sentence_transformers.json; None for none.

        Raises:
            FormatError: The family's classifier is unknown, or config.json has an unsupported setting.
        """
        family = architecture_of(config)
        if family not in FORMS:
            raise FormatError(f"{folder}/config.json: no classifier is known for '{family}'")
        labels = read_labels(config)
        _temperature(FORMS[family], config)
        return cls(
            folder=folder,
            config=config,
            hidden_size=hidden_size,
            pooling=_pooling(FORMS[family], config),
            kinds=(OutputKind.LABELS,),
            labels=labels,
            activation=read_activation(config, len(labels), settings),
            takes_token_types=_token_types(config) > 1,
            head_before_pooling=_pooling_setting(FORMS[family], config) == "late",
        )

    @property
    @override
    def dimensions(self) -> int:
        """Number of labels."""
        return len(self.labels)

    @override
    def write(self, artefact: Path) -> None:
        """Write the layers behind the encoder as one graph, [B, H] to [B, labels].

        Raises:
            FormatError: A tensor is missing or of another shape.
            OSError: The disk is full or read-only.
        """
        family = architecture_of(self.config)
        form, size = FORMS[family], self.hidden_size
        prefix = getattr(ARCHITECTURES[family], "prefix", "")
        layers = []
        with Weights(self.folder) as weights:
            if form.transform is not None:
                layers.append(form.transform.read(weights, self.config, size, (prefix, "new.")))
            scores = read_dense(
                weights, [form.scores], size, self.dimensions, needs_bias=form.has_bias
            )
            temperature = _temperature(form, self.config)
            if temperature != 1:
                weight, bias = scores.weight / temperature, scores.bias / temperature
                scores = replace(scores, weight=weight, bias=bias)
            layers.append(scores)
        export_rows(layers, artefact / HEAD_FILE)

    @override
    def pooler(self, artefact: Path, open_backend: BackendFactory) -> Pooler:
        """Return a pooler that sends pooled states (or each token's) through the classifier."""
        head = open_rows(artefact / HEAD_FILE, open_backend)
        return Pooler(self.pooling, head=head, head_before_pooling=self.head_before_pooling)

    @override
    def summary(self) -> dict[str, Any]:
        """Return the labels and whether tokens are scored."""
        return {"classifier": list(self.labels), "pools_last": self.head_before_pooling}


def is_classifier(config: Mapping[str, Any]) -> bool:
    """Whether a config.json names a `…ForSequenceClassification` class."""
    classes = config.get("architectures")
    return isinstance(classes, list) and any(str(name).endswith(SUFFIX) for name in classes)


def read_labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Read the labels of a config.json, in the order of the scores.

    Raises:
        FormatError: They are not numbered from 0.
    """
    id2label = config.get("id2label")
    if isinstance(id2label, dict) and id2label:
        try:
            numbered = {int(number): str(label) for number, label in id2label.items()}
        except ValueError:
            numbered = {}
        if sorted(numbered) != list(range(len(id2label))):
            raise FormatError("config.json: 'id2label' must number labels from 0")
        return tuple(numbered[number] for number in range(len(numbered)))
    count = config.get("num_labels", 2)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise FormatError("config.json: 'num_labels' must be a positive integer")
    return tuple(f"LABEL_{number}" for number in range(count))


def read_activation(
    config: Mapping[str, Any], labels: int, settings: Mapping[str, Any] | None = None
) -> str:
    """Read what makes probabilities of scores; by default what sentence-transformers and TEI take.

    Args:
        config: The config.json of the model.
        labels: How many it has.
        settings: Its config_sentence_transformers.json, where versions 5.4 and newer write it; None for none.

    Returns:
        "sigmoid", "softmax" or "identity".

    Raises:
        FormatError: A file says another one.
    """
    section = config.get("sentence_transformers")
    class_name = (settings or {}).get("activation_fn")
    class_name = class_name or (section.get("activation_fn") if isinstance(section, dict) else None)
    class_name = class_name or config.get("sbert_ce_default_activation_function")
    if class_name is not None:
        name = str(class_name).rsplit(".", 1)[-1]
        if name not in ACTIVATIONS:
            raise FormatError(f"config.json: activation '{class_name}' is not supported")
        return ACTIVATIONS[name]
    is_multi = config.get("problem_type") == "multi_label_classification"
    return "sigmoid" if labels == 1 or is_multi else "softmax"


def _pooling(form: ClassifierForm, config: Mapping[str, Any]) -> str:
    setting = _pooling_setting(form, config)
    return form.pooling if setting is None else form.poolings[setting]


def _pooling_setting(form: ClassifierForm, config: Mapping[str, Any]) -> str | None:
    """Return the pooling that config.json says; None where the family has one way."""
    if form.pooling_field is None:
        return None
    name, default = form.pooling_field
    setting = config.get(name, default)
    if not isinstance(setting, str) or setting not in form.poolings:
        raise FormatError(f"config.json: {name} '{setting}' is not supported")
    return setting


def _temperature(form: ClassifierForm, config: Mapping[str, Any]) -> np.float32:
    """Return what scores are divided by."""
    if not form.temperature_field:
        return np.float32(1)
    return np.float32(positive_number(config, form.temperature_field, 1.0))


def _token_types(config: Mapping[str, Any]) -> int:
    """Return the rows of the token type table; 0 for families that have none."""
    rows = config.get("type_vocab_size")
    return rows if isinstance(rows, int) and not isinstance(rows, bool) else 0
