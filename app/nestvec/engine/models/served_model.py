"""A model that is served: what it is, and the parts that do its work."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nestvec.engine.core.coalescing import Coalescer
from nestvec.engine.core.ports import Core
from nestvec.engine.instructions import Instruct
from nestvec.engine.text.late_interaction import LateInteraction
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import OutputKind
from nestvec.engine.vectors.maps import AffineMap
from nestvec.engine.vectors.quantization import Quantiser
from nestvec.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """All that serving needs to know of a model; read from its files and card, never guessed.

    Attributes:
        name: The name it is served under.
        hidden_size: Native dimensions H.
        max_tokens: Most tokens of an input, special tokens included.
        vocabulary_size: Rows of the embedding table.
        pooling: Key of `pooling.POOLINGS`.
        is_normalized: Whether the model's own last step scales to unit length.
        prompts: Text put before an input, by the model's own prompt names.
        default_prompt: Name of the prompt used where a call names none; None for no prompt.
        pools_prompt: Whether a prompt's tokens count in pooling.
        trained_dimensions: Dimensions the model was trained for (Matryoshka); always holds H.
        trained_layers: Early exits the model was trained for (2D Matryoshka, arXiv:2402.14776).
        space: Fingerprint of the embedding space.
        created_s: Unix time at which the artefact was made.
        source: Where its files came from, for people.
        license: SPDX id, "" where unknown.
        kinds: What it gives.
        labels: Of a classifier, in the order of its scores; a re-ranker has one.
        activation: What makes probabilities of them: "sigmoid", "softmax" or "identity".
        instruct: Templates of instructions; None where it takes none.
        echo: What stands before a text's first reading and between its two, for models that read it twice.
        late_interaction: How token vectors are made that are compared one by one; None where they are plain states.
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

    @property
    def is_reranker(self) -> bool:
        """Whether it scores pairs by one label."""
        return len(self.labels) == 1


@dataclass(frozen=True, slots=True)
class Pin:
    """What a name stands for beside its model, for callers that can say neither.

    Attributes:
        prompt_name: One of the model's prompts, used where a call names none.
        dimensions: Used where a call asks for none.
    """

    prompt_name: str | None = None
    dimensions: int | None = None


NO_PIN: Final = Pin()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that is loaded and can take calls.

    Attributes:
        aliases: Further names.
        pins: What some of them stand for beside.
        quantiser: Ranges for 8-bit vectors.
        maps: Maps of its vectors, by name.
        quality: What was measured of it, as the report left it; None where nothing was.
        coalescer: Before the core: identical texts in flight run once.
        graph_bytes: Size of the graph and its weights; 0 where unknown.
    """

    spec: ModelSpec
    tokenizer: Tokenizer
    core: Core
    aliases: tuple[str, ...] = ()
    pins: Mapping[str, Pin] = field(default_factory=dict)
    quantiser: Quantiser = field(default_factory=Quantiser)
    graph_bytes: int = 0
    maps: Mapping[str, AffineMap] = field(default_factory=dict)
    quality: Mapping[str, Any] | None = None
    coalescer: Coalescer = field(init=False)

    def __post_init__(self) -> None:
        """Put the coalescer before the core."""
        object.__setattr__(self, "coalescer", Coalescer(self.core.submit))

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it answers to, its own first."""
        return (self.spec.name, *self.aliases, *self.pins)


def check_pins(pins: Mapping[str, Pin], spec: ModelSpec) -> None:
    """Refuse names that stand for what the model does not have.

    Raises:
        ConfigError: Names each.
    """
    problems = []
    for name, pin in pins.items():
        if pin.prompt_name is not None and pin.prompt_name not in spec.prompts:
            known = ", ".join(sorted(spec.prompts)) or "none"
            problems.append(f"aliases.{name}.prompt_name: {spec.name} has these prompts: {known}")
        if pin.dimensions is not None and not 1 <= pin.dimensions <= spec.hidden_size:
            problems.append(f"aliases.{name}.dimensions: must be 1 to {spec.hidden_size}")
    if problems:
        raise ConfigError(problems)


def base_name(name: str) -> str:
    """A name without Ollama's `:latest`."""
    return name.removesuffix(":latest")


def base_model(name: str) -> str:
    """A name without the task of an adapter."""
    return name.split(":", 1)[0]
