"""ModelSpec: what serving needs to know of a model."""

from collections.abc import Mapping
from dataclasses import dataclass

from nestvec.engine.pictures.prefix import PrefixTower
from nestvec.engine.pictures.tower import VisionTower
from nestvec.engine.text.late_interaction import LateInteraction
from nestvec.engine.text.pair_template import PairTemplate
from nestvec.engine.text.preparation.chat_frame import ChatFrame
from nestvec.engine.text.preparation.instructions import Instruct
from nestvec.engine.types import OutputKind
from nestvec.engine.vectors.label_scale import LabelScale
from nestvec.engine.vectors.token_vectors import TokenPooling


@dataclass(frozen=True, slots=True)
class QueryLookup:
    """How queries are weighed by stored weights alone, so that no model runs for them (arXiv:2411.04403).

    Attributes:
        adds_special_tokens: Whether the special tokens around a query are weighed too.
        is_default: Whether texts are queries where a call says nothing of their role.
    """

    adds_special_tokens: bool = True
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """All that serving needs to know of a model; read from its files and card, never guessed.

    `nestvec export` writes it as spec.json, with these names in this order.

    Attributes:
        name: Name that the model is served under.
        hidden_size: Native number of dimensions, H.
        max_tokens: Maximum number of tokens of an input, special tokens included.
        vocabulary_size: Number of rows of the embedding table.
        pooling: Key of `pooling.POOLINGS`.
        is_normalized: Whether the model's own last step scales to unit length.
        prompts: Text put before an input, by the model's own prompt names.
        default_prompt: Name of the prompt used where a call names none; None for no prompt.
        pools_prompt: Whether a prompt's tokens count in pooling.
        trained_dimensions: Dimensions the model was trained for (Matryoshka); always holds H.
        space: Fingerprint of the embedding space.
        created_s: Unix time at which the artefact was made.
        source: Where the model's files came from, for people.
        license: SPDX id, "" where unknown.
        architecture: The encoder's `model_type`, as in its config.json.
        precision: Precision of the graph, as in the settings.
        kinds: Outputs that the model gives.
        labels: Labels of a classifier, in the order of its scores; a re-ranker has one.
        activation: What makes probabilities of scores: "sigmoid", "softmax" or "identity".
        instruct: Templates for instructions; None where the model takes none.
        echo: Words before a text's first reading and between its two, for models that read it twice.
        late_interaction: How queries and documents are tokenized for token vectors that are compared one by one; None
            where token vectors are plain states.
        trained_layers: Early exits the model was trained for (2D Matryoshka, arXiv:2402.14776).
        languages: BCP-47 tags of the languages it was made for; empty where unknown, or only their number is known.
        language_count: Number of those languages; 0 where unknown.
        parameters: Number of its weights, as its card states it; 0 where unknown.
        query_lookup: How queries are weighed by stored weights; None where they go through the model as documents do.
        pair: The template in which a re-ranker reads a query and a document; None where it reads them as two texts.
        token_pooling: How the model itself merges like token vectors; None where it does not.
        pictures: How it takes pictures beside texts, or among them; None where it takes texts only.
        label_scale: What it learned of cosines of pictures with texts; None where it learned none.
        chat: The messages in which it reads a text and what is wanted of it; None where it reads texts as they are.
    """

    name: str
    hidden_size: int
    max_tokens: int
    vocabulary_size: int
    pooling: str
    is_normalized: bool
    prompts: Mapping[str, str]
    default_prompt: str | None
    pools_prompt: bool
    trained_dimensions: tuple[int, ...]
    space: str
    created_s: int
    source: str
    license: str = ""
    architecture: str = ""
    precision: str = "fp32"
    kinds: tuple[OutputKind, ...] = (OutputKind.DENSE, OutputKind.TOKENS)
    labels: tuple[str, ...] = ()
    activation: str = "identity"
    instruct: Instruct | None = None
    echo: tuple[str, str] | None = None
    late_interaction: LateInteraction | None = None
    trained_layers: tuple[int, ...] = ()
    languages: tuple[str, ...] = ()
    language_count: int = 0
    parameters: int = 0
    query_lookup: QueryLookup | None = None
    pair: PairTemplate | None = None
    token_pooling: TokenPooling | None = None
    pictures: VisionTower | PrefixTower | None = None
    label_scale: LabelScale | None = None
    chat: ChatFrame | None = None

    def framed(self, prompt: str) -> str:
        """Return what stands before a text for a prompt: itself, or messages that say what is wanted."""
        return prompt if self.chat is None else self.chat.prefix(prompt)

    @property
    def takes_mixtures(self) -> bool:
        """Whether it takes texts and pictures in one input."""
        return self.pictures is not None and self.chat is not None

    @property
    def reads_pictures_as_tokens(self) -> bool:
        """Whether pictures run among tokens, so that one has a vector for each of its own, as a text has."""
        return isinstance(self.pictures, PrefixTower)

    @property
    def is_reranker(self) -> bool:
        """Whether the model scores pairs with a single label."""
        return len(self.labels) == 1
