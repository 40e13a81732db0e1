"""Vectors of a corpus by the engine of this process, and what every source of vectors gives."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from nestvec.corpus.pacing import CallPacer, PaceLimits
from nestvec.corpus.store_writer import Vectors
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.front.vector_plan import resolve_plan
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.outputs.adapters import ADAPTERS
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.service import EmbeddingService
from nestvec.engine.splitting import Span
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import EmbedCall, OutputKind, Priority, Truncation
from nestvec.engine.vectors.groups import Groups

# Calls that end in a second and a half keep the workers fed, batches sorted by length, and progress moving.
PACE: Final = PaceLimits(
    target_s=1.5, in_flight=4, first_tokens=1024, max_tokens=1_000_000, max_texts=2048
)


class OutputForm(StrEnum):
    """What is made of a text."""

    DENSE = "dense"  # one vector
    SPARSE = "sparse"  # weights of terms
    MULTI_VECTOR = "multi-vector"  # a vector for each token


KINDS: Final = {
    OutputForm.DENSE: OutputKind.DENSE,
    OutputForm.SPARSE: OutputKind.SPARSE,
    OutputForm.MULTI_VECTOR: OutputKind.TOKENS,
}


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
        bound: How far its vectors may be from those of another machine or run, where that is stated: `max_difference`
            of a value, or `mean_cosine` and `min_cosine`.
        labels: What each value stands for, where the map gives one for each label.
    """

    name: str
    space: str
    source: str
    hidden_size: int
    max_tokens: int
    quantization: str
    bound: Mapping[str, float] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TextOptions:
    """What is asked for all texts alike; hashed by field name to recognize an interrupted run."""

    dimensions: int | None = None
    output_dtype: OutputDtype = OutputDtype.FLOAT32
    truncate: Truncation = Truncation.END
    prompt_name: str | None = None
    prompt_role: str | None = None
    layers: int | None = None
    map_name: str | None = None
    form: OutputForm = OutputForm.DENSE


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of some texts.

    Attributes:
        vectors: `[N, D]` of the dtype asked for; `[N, D / 8]` for bits; for multi-vector outputs N arrays `[T, D]`,
            for sparse ones N arrays `[terms, 2]` of (id, weight).
        tokens: The model's tokens of all texts, after truncation.
        truncated: How many of the texts were truncated.
    """

    vectors: Vectors
    tokens: int
    truncated: int


class CorpusEmbedder(Protocol):
    """A source of vectors for texts.

    Attributes:
        pacer: Sizes the calls.
    """

    pacer: CallPacer

    async def model(self, options: TextOptions) -> ModelDescription:
        """Describe the model and the space of its vectors.

        Raises:
            InputError: It has no such layers or map, or does not give the form asked for.
        """

    async def embed(
        self,
        texts: Sequence[str | Picture],
        options: TextOptions,
        spans: Sequence[Sequence[Span]] | None = None,
        contexts: Sequence[str] = (),
        groups: Groups | None = None,
    ) -> Embedded:
        """Embed texts, in order.

        Args:
            texts: The texts, or documents, or pictures.
            options: What is asked for all alike.
            spans: Late chunking: the chunks of each document, in characters; each gets a vector, pooled from token
                states that saw its whole document.
            contexts: What is read before each text and left out of the pooling, "" for nothing; empty for none at all.
            groups: Which texts make a vector together; None: each has one.

        Raises:
            InputError: A text or an option is refused; the error names the text's index, or, as `param` says, that of
                its group.
        """

    async def check_composition(
        self, options: TextOptions, *, has_contexts: bool, has_groups: bool
    ) -> None:
        """Try whether the model takes contexts and groups.

        Raises:
            InputError: It does not; the error says why.
        """

    async def token_starts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return where the tokens of each text start, in characters, without special tokens.

        Raises:
            InputError: A text is refused; the error names its index.
        """


class EngineEmbedder:
    """Embeds by the engine of this process.

    Args:
        service: The service.
        model: Name of the model or recipe that is meant; "" for the first that gives the output.
    """

    def __init__(self, service: EmbeddingService, model: str = "") -> None:
        self._service, self._model = service, model
        self.pacer = CallPacer(PACE)

    async def model(self, options: TextOptions) -> ModelDescription:
        """Describe the model that is loaded.

        Raises:
            InputError: It has no such layers or map, or does not give the form asked for.
        """
        kind = KINDS[options.form]
        served = await self._loaded(kind)
        spec = served.spec
        call = EmbedCall((), layers=_layers(options), map_id=options.map_name, kind=kind)
        allows = self._service.limits.allows_untrained_layers
        plan = resolve_plan(call, served, allows_untrained=allows)
        width = spec.hidden_size if plan.map is None else plan.map.width
        if options.form is not OutputForm.DENSE:
            width = ADAPTERS[kind].width(served.core.pooler, spec.hidden_size)
        self.pacer.tokens_per_text = spec.max_tokens
        return ModelDescription(
            spec.name,
            plan.space,
            spec.source,
            width,
            spec.max_tokens,
            plan.quantizer.id,
            served.bound,
            plan.map.labels if plan.map is not None else (),
        )

    async def embed(
        self,
        texts: Sequence[str | Picture],
        options: TextOptions,
        spans: Sequence[Sequence[Span]] | None = None,
        contexts: Sequence[str] = (),
        groups: Groups | None = None,
    ) -> Embedded:
        """Embed texts as a bulk call."""
        call = self._call(texts, options, spans, contexts, groups)
        started_s = self.pacer.clock()
        result = await self._service.embed(call)
        tokens = sum(result.input_tokens)
        self.pacer.done(whole_texts(texts, contexts), tokens, self.pacer.clock() - started_s)
        rows = result.converted.get(options.output_dtype, result.vectors)
        vectors = rows if options.form is OutputForm.DENSE else result.by_input(rows)
        return Embedded(vectors, tokens, sum(result.is_truncated))

    async def check_composition(
        self, options: TextOptions, *, has_contexts: bool, has_groups: bool
    ) -> None:
        """Try whether the model takes contexts and groups, by a short text that is no part of the pace."""
        contexts, groups = ["a"] * has_contexts, Groups((1,)) if has_groups else None
        await self._service.embed(self._call(["a"], options, None, contexts, groups))

    def _call(
        self,
        texts: Sequence[str | Picture],
        options: TextOptions,
        spans: Sequence[Sequence[Span]] | None,
        contexts: Sequence[str],
        groups: Groups | None,
    ) -> EmbedCall:
        """The engine's call for texts."""
        return EmbedCall(
            inputs=list(texts),
            model=self._model,
            dimensions=options.dimensions,
            truncate=options.truncate if spans is None else None,
            prompt_name=options.prompt_name,
            prompt_role=self._role(options),
            output_dtypes=(options.output_dtype,),
            priority=Priority.BULK,
            layers=_layers(options),
            map_id=options.map_name,
            kind=KINDS[options.form],
            splits=() if spans is None else tuple(map(tuple, spans)),
            context=tuple(contexts) if any(contexts) else (),
            groups=() if groups is None else groups.sizes,
            weights=() if groups is None else groups.weights,
        )

    def _role(self, options: TextOptions) -> str | None:
        """Return what texts are for: documents, of models that take a text for a query where nothing says otherwise."""
        spec = self._service.models.find(self._model, KINDS[options.form]).spec
        late = None if spec is None else spec.late_interaction
        if late is None or not late.takes_queries_unasked or options.prompt_name is not None:
            return options.prompt_role
        return options.prompt_role or "passage"

    async def token_starts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return where the tokens of each text start, by the model's tokenizer."""
        tokenizer = (await self._loaded(None)).tokenizer
        options = TokenizeOptions(Truncation.END)

        def work() -> list[list[int]]:
            return [
                tokenizer.encode_with_starts(text, options, index)[1].tolist()
                for index, text in enumerate(texts)
            ]

        return await asyncio.to_thread(work)

    async def _loaded(self, kind: OutputKind | None) -> ServedModel:
        """Return the model, loaded: the settings may have it so on its first use."""
        async with self._service.pool.using(self._model, kind) as served:
            return served


def whole_texts(texts: Sequence[str | Picture], contexts: Sequence[str]) -> Sequence[str | Picture]:
    """Return what the model reads of each text, its context included, to estimate tokens by."""
    if not any(contexts):
        return texts
    return [
        text if isinstance(text, Picture) else context + text
        for context, text in zip(contexts, texts, strict=True)
    ]


def _layers(options: TextOptions) -> tuple[int, ...]:
    return () if options.layers is None else (options.layers,)
