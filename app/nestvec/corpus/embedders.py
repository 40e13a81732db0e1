"""Vectors of a corpus by the engine of this process, and what every source of vectors gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall, Priority, Truncation
from nestvec.engine.vector_plan import resolve_plan


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Where vectors come from, as an output tells it.

    Attributes:
        name: The model's name.
        space: Fingerprint of the embedding space, after layers and map.
        source: Where the model's files came from, for people.
        hidden_size: Dimensions before truncation.
        max_tokens: Most tokens of an input.
        quantization: Id of the ranges in which int8 and uint8 vectors are given.
    """

    name: str
    space: str
    source: str
    hidden_size: int
    max_tokens: int
    quantization: str


@dataclass(frozen=True, slots=True)
class TextOptions:
    """What is asked for all texts alike; hashed by field name to recognize an interrupted run."""

    dimensions: int | None = None
    output_dtype: OutputDtype = OutputDtype.FLOAT32
    truncate: Truncation = Truncation.END
    prompt_name: str | None = None
    layers: int | None = None
    map_name: str | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of some texts.

    Attributes:
        vectors: `[N, D]` of the dtype asked for; `[N, D / 8]` for bits.
        tokens: The model's tokens of all texts, after truncation.
        truncated: How many of the texts were truncated.
    """

    vectors: NDArray[Any]
    tokens: int
    truncated: int


class VectorSource(Protocol):
    """A source of vectors for texts."""

    async def model(self, options: TextOptions) -> ModelDescription:
        """Describe the model and the space of its vectors.

        Raises:
            InputError: It has no such layers or map.
        """

    async def embed(self, texts: Sequence[str], options: TextOptions) -> Embedded:
        """Embed texts, in order.

        Raises:
            InputError: A text or an option is refused; the error names the text's index.
        """


class EngineEmbedder:
    """Embeds by the engine of this process.

    Args:
        service: The service, with one model.
    """

    def __init__(self, service: EmbeddingService) -> None:
        self._service = service

    async def model(self, options: TextOptions) -> ModelDescription:
        """Describe the model that is loaded."""
        served = self._service.models.resolve("")
        spec = served.spec
        call = EmbedCall((), layers=_layers(options), map_id=options.map_name)
        allows = self._service.limits.allows_untrained_layers
        plan = resolve_plan(call, served, allows_untrained=allows)
        width = spec.hidden_size if plan.map is None else plan.map.width
        return ModelDescription(
            spec.name, plan.space, spec.source, width, spec.max_tokens, plan.quantizer.id
        )

    async def embed(self, texts: Sequence[str], options: TextOptions) -> Embedded:
        """Embed texts as a bulk call."""
        call = EmbedCall(
            inputs=list(texts),
            dimensions=options.dimensions,
            truncate=options.truncate,
            prompt_name=options.prompt_name,
            output_dtypes=(options.output_dtype,),
            priority=Priority.BULK,
            layers=_layers(options),
            map_id=options.map_name,
        )
        result = await self._service.embed(call)
        vectors = result.converted[options.output_dtype]
        return Embedded(vectors, sum(result.input_tokens), sum(result.is_truncated))


def _layers(options: TextOptions) -> tuple[int, ...]:
    return () if options.layers is None else (options.layers,)
