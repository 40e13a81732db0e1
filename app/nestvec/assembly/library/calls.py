"""What a caller of the library says, as calls of the engine; and long lists of inputs as several of them."""

import asyncio
import itertools
import operator
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, SupportsIndex, TypedDict

import numpy as np
from numpy.typing import NDArray

from nestvec.assembly.library.inputs import (
    LibraryInput,
    checked_inputs,
    read_pictures,
    text_costs,
)
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.front.vector_plan import resolve_plan
from nestvec.engine.results import EmbedResult
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall, Truncation
from nestvec.engine.vectors.groups import Groups
from nestvec.errors import InputError, InternalError

# So many texts are a call of the engine, and so many calls are under way: it never waits for the next one, and what is
# made of the texts before they run stays small.
SLICE_TEXTS: Final = 1024
CALLS_IN_FLIGHT: Final = 2
ROLES: Final[Mapping[str, str]] = {
    "query": "query",
    "document": "passage",
    "passage": "passage",
}

Advance = Callable[[int], None]
Dtype = Literal[
    "float32",
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e5m2",
    "int8",
    "uint8",
    "binary",
    "ubinary",
]


class EmbedOptions(TypedDict, total=False):
    """What may be asked for all texts and pictures of a call; prompts, contexts and cuts are of texts only.

    Attributes:
        model: Which of several models, by any of its names; the first by default.
        dimensions: Cut vectors to this many leading values (Matryoshka), then scale them to unit length again.
        dtype: "float32" (the default), "float16", "int8", "uint8", "binary", "ubinary", or one of ml_dtypes'
            "bfloat16", "float8_e4m3fn" and "float8_e5m2".
        role: "query" or "document": put the model's own prompt for it before each text, where it has one.
        prompt_name: Put the model's prompt of this name before each text.
        prompt: Put this before each text.
        instruction: What is wanted of the texts, for models that take instructions in a template of their own.
        truncate: What is done with a text that is too long: "error" (the default), "end", "start" or "windows".
        normalize: Whether vectors have unit length; by default as the model's authors do it.
        layers: Stop early, after so many layers.
        map: The name of one of the model's maps, which vectors go through.
        context: A text before each text, or one before all, which is read and left out of the pooling.
        groups: How many consecutive texts make one vector together, each time; they add up to the number of texts.
        weights: The weight of each text in its group; 1 by default.
    """

    model: str
    dimensions: SupportsIndex | None
    dtype: Dtype
    role: Literal["query", "document"] | None
    prompt_name: str | None
    prompt: str | None
    instruction: str | None
    truncate: Literal["error", "end", "start", "windows"] | None
    normalize: bool | None
    layers: SupportsIndex | None
    map: str | None
    context: str | Sequence[str] | None
    groups: Sequence[SupportsIndex] | None
    weights: Sequence[float] | None


@dataclass(frozen=True, slots=True)
class TextsCall:
    """Texts and pictures, and what is asked for them.

    Attributes:
        texts: The texts and pictures.
        options: What is asked for all of them; its inputs are empty.
        dtype: The vectors' dtype.
    """

    texts: "Sequence[LibraryInput]"
    options: EmbedCall
    dtype: OutputDtype

    async def embed(self, service: EmbeddingService, advance: Advance) -> NDArray[Any]:
        """Embed all texts and pictures; `[N, D]`, or `[N, D / 8]` for bits.

        Args:
            service: The engine.
            advance: Called with the number of inputs done since the last call, on the event loop.

        Raises:
            InputError: A text, a picture or an option is refused; a note names the input.
        """
        if not self.texts:
            return await self._nothing(service)
        calls = self._calls()
        parts: list[NDArray[Any]] = [np.zeros(0)] * len(calls)
        numbered = iter(enumerate(calls))

        async def work() -> None:
            for number, (start, stop, options) in numbered:
                inputs = await read_pictures(self.texts[start:stop], "texts", start)
                call = replace(options, inputs=inputs)
                result = await run_call(service, call, "texts", start)
                parts[number] = result.converted[self.dtype]
                advance(len(inputs))

        await together([work() for _ in range(min(len(parts), CALLS_IN_FLIGHT))])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _calls(self) -> list[tuple[int, int, EmbedCall]]:
        """The calls that the inputs make, each with where its inputs begin and end; none parts a group."""
        options, calls = self.options, []
        bounds = self._bounds()
        for (start, first), (stop, last) in itertools.pairwise(bounds):
            call = replace(
                options,
                context=options.context[start:stop],
                groups=options.groups[first:last],
                weights=options.weights[start:stop],
            )
            calls.append((start, stop, call))
        return calls

    def _bounds(self) -> list[tuple[int, int]]:
        """Where calls begin and the last one ends: in inputs, and in groups."""
        count, groups = len(self.texts), self.options.groups
        costs = text_costs(self.texts, "texts")
        if costs is None and not groups:
            return [*((start, 0) for start in range(0, count, SLICE_TEXTS)), (count, 0)]
        # Of inputs that are texts each counts as one; without groups each input is one.
        totals = [0, *itertools.accumulate(costs or [1] * count)]
        bounds, stop = [(0, 0)], 0
        for number, size in enumerate(groups or (1,) * count, 1):
            stop += size
            is_full = totals[stop] - totals[bounds[-1][0]] >= SLICE_TEXTS
            if is_full or stop == count:
                bounds.append((stop, number if groups else 0))
        return bounds

    async def _nothing(self, service: EmbeddingService) -> NDArray[Any]:
        """No vectors, of the width and dtype that vectors would have."""
        async with service.pool.using(self.options.model) as served:
            allows = service.limits.allows_untrained_layers
            plan = resolve_plan(self.options, served, allows_untrained=allows)
            width = served.spec.hidden_size if plan.map is None else plan.map.width
        width = self.options.dimensions or width
        return np.zeros((0, width // self.dtype.values_per_item), self.dtype.storage_dtype)


def texts_call(texts: "Iterable[LibraryInput]", options: EmbedOptions) -> TextsCall:
    """Read what a caller of the library asks for.

    Raises:
        InputError: An input is no text or picture, or an option is unknown or has no such value; names it.
    """
    unknown = set(options) - set(EmbedOptions.__annotations__)
    if unknown:
        known = ", ".join(sorted(EmbedOptions.__annotations__))
        name = min(unknown)
        raise InputError(f"there is no option '{name}'; there are: {known}", param=name)
    given: Mapping[str, Any] = {key: value for key, value in options.items() if value is not None}
    dtype = _member(OutputDtype, "dtype", given.get("dtype", OutputDtype.FLOAT32))
    dimensions, layers = (
        None if (value := given.get(name)) is None else operator.index(value)
        for name in ("dimensions", "layers")
    )
    role = given.get("role")
    if role is not None and role not in ROLES:
        raise InputError("'role' must be 'query' or 'document'", param="role")
    listed = checked_inputs(texts, "texts")
    groups = tuple(operator.index(size) for size in given.get("groups", ()))
    weights = tuple(float(weight) for weight in given.get("weights", ()))
    if groups or weights:
        Groups(groups, weights).check(len(listed))
    call = EmbedCall(
        inputs=(),
        model=given.get("model", ""),
        dimensions=dimensions,
        normalize=given.get("normalize"),
        truncate=truncation(given.get("truncate")),
        prompt_name=given.get("prompt_name"),
        prompt_role=None if role is None else ROLES[role],
        prompt=given.get("prompt"),
        instruction=given.get("instruction"),
        output_dtypes=(dtype,),
        layers=() if layers is None else (layers,),
        map_id=given.get("map"),
        groups=groups,
        weights=weights,
        context=_context(given.get("context", ()), len(listed)),
    )
    return TextsCall(listed, call, dtype)


def _context(context: str | Sequence[str], texts: int) -> tuple[str, ...]:
    """Read the context of each text.

    Raises:
        InputError: There are others than one for all or one for each.
    """
    if isinstance(context, str):
        return (context,) * texts
    listed = tuple(checked_texts(context, "context"))
    if listed and len(listed) != texts:
        raise InputError(
            f"'context' must hold a text for each of the {texts} texts, and holds {len(listed)}",
            param="context",
        )
    return listed


def truncation(value: str | None) -> Truncation | None:
    """Read what is done with long texts.

    Raises:
        InputError: There is no such way.
    """
    return None if value is None else _member(Truncation, "truncate", value)


def checked_texts(texts: Iterable[str], name: str) -> Sequence[str]:
    """Return texts as a sequence.

    Raises:
        InputError: It is one text, or holds something that is none; names the index.
    """
    if isinstance(texts, str | bytes):
        raise InputError(f"'{name}' must be a list of texts", param=name)
    listed = texts if isinstance(texts, list | tuple) else list(texts)
    for index, text in enumerate(listed):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise InputError(
                f"{name}[{index}] must be a text, not {kind}", param=name, input_index=index
            )
    return listed


async def run_call(
    service: EmbeddingService, call: EmbedCall, name: str, first: int = 0
) -> EmbedResult:
    """Run a call, whose errors name the caller's argument and the input's index in it.

    Args:
        service: The engine.
        call: What is run.
        name: The argument that the inputs came in.
        first: Index in it of the call's first input.
    """
    try:
        return await service.embed(call)
    except (InputError, InternalError) as error:
        if error.input_index is not None:
            error.input_index += first
            error.add_note(f"The input is {name}[{error.input_index}].")
        raise


async def together(works: Sequence[Awaitable[None]]) -> None:
    """Wait for all works; when one fails, or the caller leaves, the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _member(kind: Any, name: str, value: str) -> Any:  # noqa: ANN401 - of any enumeration
    """Read a member of an enumeration by its value.

    Raises:
        InputError: There is none.
    """
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(f"'{member.value}'" for member in kind)
        raise InputError(f"'{name}' must be one of {known}", param=name) from None
