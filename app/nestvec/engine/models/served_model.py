"""A model that is served: what it is, and the parts that do its work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from nestvec.engine.core.coalescing import Coalescer
from nestvec.engine.core.ports import Core
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.outputs.adapters import ADAPTERS
from nestvec.engine.outputs.base import OutputAdapter
from nestvec.engine.outputs.lexical import LexicalOutput
from nestvec.engine.text.preparation.text_form import TextForm
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import EmbedCall, FloatArray, OutputKind
from nestvec.engine.vectors.maps import AffineMap
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.errors import ConfigError


@dataclass(frozen=True, slots=True)
class AliasPreset:
    """What an alias stands for beside its model, for callers that can say neither.

    Attributes:
        prompt_name: One of the model's prompts, used where a call names none.
        dimensions: Number of dimensions, used where a call asks for none.
        layers: Number of layers that run, used where a call asks for vectors and says neither layers nor map.
        map_id: The map that vectors go through, used as `layers` is.
        output_dtype: The vectors' dtype, for dialects to use where a request names none.
        text: The form of its texts; None for the model's own.
    """

    prompt_name: str | None = None
    dimensions: int | None = None
    layers: int | None = None
    map_id: str | None = None
    output_dtype: OutputDtype | None = None
    text: TextForm | None = None

    def variant(self, model: "ServedModel") -> "ServedModel":
        """Return the model as it takes texts under the alias."""
        return model if self.text is None else model.variants[self.text]

    def fill(self, call: EmbedCall) -> EmbedCall:
        """Return the call with what the alias stands for, where it does not say otherwise."""
        if self is NO_PRESET:
            return call
        has_prompt = call.prompt is not None or call.prompt_name is not None or call.prompt_role
        has_way = bool(call.layers) or call.map_id is not None or call.kind is not OutputKind.DENSE
        return replace(
            call,
            prompt_name=call.prompt_name if has_prompt else self.prompt_name,
            dimensions=self.dimensions if call.dimensions is None else call.dimensions,
            layers=call.layers if has_way or self.layers is None else (self.layers,),
            map_id=call.map_id if has_way else self.map_id,
        )


NO_PRESET: Final = AliasPreset()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that is loaded and can take calls.

    Attributes:
        spec: What the model is.
        tokenizer: Its tokenizer.
        core: Runs its items.
        aliases: Further names.
        presets: Further names again, with what each stands for beside the model.
        quantizer: Ranges for 8-bit vectors.
        graph_bytes: Size of the graph and its weights; 0 where unknown.
        maps: Maps of the model's vectors, by name.
        quality: What was measured of the model, as the report left it; None where nothing was.
        reports: What other reports found, by name, as they left it.
        token_table: Reads its table of token vectors, `[V, H]`; None where there is none to read.
        variants: The model again, as it takes texts in other forms, each with a space of its own.
        bound: What its vectors are held to at each start: `max_difference` of a value, or `mean_cosine` and
            `min_cosine`, on the probe texts.
        lexical: Weighs terms by counts of a corpus; None where the model has a head for that, or nothing was counted.
        coalescer: Stands before the core: identical texts in flight run once.
    """

    spec: ModelSpec
    tokenizer: Tokenizer
    core: Core
    aliases: tuple[str, ...] = ()
    presets: Mapping[str, AliasPreset] = field(default_factory=dict)
    quantizer: Quantizer = field(default_factory=Quantizer)
    graph_bytes: int = 0
    maps: Mapping[str, AffineMap] = field(default_factory=dict)
    quality: Mapping[str, Any] | None = None
    reports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    token_table: Callable[[], FloatArray | None] | None = None
    bound: Mapping[str, float] = field(default_factory=dict)
    variants: Mapping[TextForm, "ServedModel"] = field(default_factory=dict)
    lexical: LexicalOutput | None = None
    coalescer: Coalescer = field(init=False)

    def __post_init__(self) -> None:
        """Put the coalescer before the core."""
        object.__setattr__(self, "coalescer", Coalescer(self.core.submit))

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that the model answers to, its own first."""
        return (self.spec.name, *self.aliases, *self.presets)

    def adapter(self, kind: OutputKind) -> OutputAdapter:
        """Return what makes a kind of output of the model's."""
        own = self.lexical if kind is OutputKind.SPARSE else None
        return own or ADAPTERS[kind]


def check_presets(presets: Mapping[str, AliasPreset], spec: ModelSpec) -> None:
    """Refuse aliases that stand for what the model does not have.

    Raises:
        ConfigError: A prompt or a number of dimensions does not exist; names each.
    """
    problems = []
    for name, preset in presets.items():
        if preset.prompt_name is not None and preset.prompt_name not in spec.prompts:
            known = ", ".join(sorted(spec.prompts)) or "none"
            problems.append(f"aliases.{name}.prompt_name: {spec.name} has these prompts: {known}")
        if preset.dimensions is not None and not 1 <= preset.dimensions <= spec.hidden_size:
            problems.append(f"aliases.{name}.dimensions: must be 1 to {spec.hidden_size}")
    if problems:
        raise ConfigError(problems)


def base_name(name: str) -> str:
    """Return a name without Ollama's `:latest`."""
    return name.removesuffix(":latest")


def base_model(name: str) -> str:
    """Return a name without the task of an adapter."""
    return name.split(":", 1)[0]
