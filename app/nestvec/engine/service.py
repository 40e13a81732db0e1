"""EmbeddingService: what the HTTP layer, the command line and batch jobs call.

The front half of the engine: resolve model and prompt, tokenise off the event loop, hand items to the core,
cut and renormalise.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.cache.read_through import VectorFetcher
from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.items import Run, as_items, long_inputs, together
from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.model_registry import Models
from nestvec.engine.models.served_model import NO_PIN, Pin, ServedModel
from nestvec.engine.options import check_output
from nestvec.engine.text.encoded import Encoded, Fit, Token
from nestvec.engine.tokenization import asks_for_queries, input_tokens, resolve_prompt, tokenize
from nestvec.engine.types import (
    EmbedCall,
    EmbedResult,
    FloatArray,
    Observer,
    OutputKind,
    Priority,
    RawVectors,
    Timings,
    Truncation,
)
from nestvec.engine.vector_plan import Way, find_way
from nestvec.engine.vectors.pooler import Outputs
from nestvec.engine.vectors.postprocess import convert, finish
from nestvec.engine.vectors.token_vectors import pool_tokens
from nestvec.errors import DeadlineError, EmptyInputError, InputError, RequestTooLargeError

Result = TypeVar("Result")

# Up to so many values are finished on the event loop: about 0.2 ms; more go to a thread.
INLINE_VALUES: Final = 32 * 1024

# Texts to describe are bounded in characters: an answer holds some hundred bytes for each token.
DESCRIBED_CHARS_PER_TOKEN: Final = 4

# Likewise for inputs that are read in windows; no language has longer tokens on average.
WINDOWED_CHARS_PER_TOKEN: Final = 8

# To guess whether a call has room: more than any language has on average, so that the guess is below the truth.
ADMITTED_CHARS_PER_TOKEN: Final = 6

CALIBRATED: Final = {OutputDtype.INT8, OutputDtype.UINT8}

# Up to so many characters are tokenised on the event loop: at most 0.3 ms, and less than a thread's wake-up costs.
INLINE_CHARS: Final = 1024


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Bounds on one call.

    Attributes:
        max_inputs: Most inputs in one call.
        max_tokens: Most tokens over all inputs of a call, counted after truncation.
        truncate: For calls that do not say.
        interactive_inputs: Calls of more inputs than this are bulk, unless they say otherwise.
        allows_empty: Whether an empty text is embedded (special tokens only) or refused.
        max_token_vectors: Most vectors over all inputs of a call for token vectors.
        allows_untrained_layers: Whether early exits are served that a model was neither trained nor fitted for.
    """

    max_inputs: int = 2048
    max_tokens: int = 300_000
    truncate: Truncation = Truncation.ERROR
    interactive_inputs: int = 16
    allows_empty: bool = True
    max_token_vectors: int = 16_384
    allows_untrained_layers: bool = False


class EmbeddingService:
    """Takes calls, gives vectors.

    Args:
        models: What is served.
        pool: Keeps them in memory; by default as long as they are there.
        limits: Bounds on one call.
        observer: Told what happened.
        cache: Raw vectors of texts that were run before; None keeps nothing.
        threads: Threads for tokenising and post-processing.
        clock: Monotonic seconds.
    """

    def __init__(  # noqa: PLR0913 - parts that the composition root puts together
        self,
        models: Models,
        *,
        pool: ModelPool | None = None,
        limits: ServiceLimits,
        observer: Observer,
        threads: int,
        cache: VectorCache | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models = models
        self.pool = pool or ModelPool(models)
        self.limits = limits
        self._observer = observer
        self._clock = clock
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="nestvec-front")
        self.fetcher = VectorFetcher(cache, self._pool)

    async def embed(self, call: EmbedCall) -> EmbedResult:
        """Embed the inputs of one call.

        All inputs or none: a failing input fails its call, never another's.

        Raises:
            InputError: Something asked for cannot be; names the field or the input.
            UnknownModelError: No such model.
            CapacityError: Queue full, deadline passed, shutting down, or the model cannot be loaded.
            InternalError: The runtime failed on an input.
        """
        slot = self.models.find(call.model, call.kind).adapted(call.adapter)
        remaining_s = None if call.deadline_s is None else call.deadline_s - self._clock()
        try:
            async with asyncio.timeout(remaining_s):
                model = await self.pool.take(slot)
                try:
                    call = _pinned(call, slot.pin(call.model))
                    way = find_way(
                        call, model, allows_untrained=self.limits.allows_untrained_layers
                    )
                    self._check(call, model, way)
                    return await self._embed(call, model, way)
                finally:
                    self.pool.give_back(slot)
        except TimeoutError:
            raise DeadlineError("The deadline passed before the vectors were ready.") from None

    async def _embed(self, call: EmbedCall, model: ServedModel, way: Way) -> EmbedResult:
        spec = model.spec
        prompt_name, prompt = resolve_prompt(call, spec)
        fit = Fit(
            self._truncation(call),
            call.max_tokens,
            call.adds_special_tokens,
            prompt,
            call.max_second_tokens,
        )
        started = self._clock()
        self._check_room(call, model)
        encoded = await self._encode(call, model, fit)
        tokens = tuple(n for e in encoded for n in input_tokens(e))
        self._check_tokens(call, sum(tokens))
        tokenize_s = self._clock() - started
        raw = await self._run(call, encoded, model, way)
        finishing = self._clock()
        work = partial(_finish, raw, call, model, way)
        is_small = raw.vectors.size <= INLINE_VALUES and call.pool_factor == 1
        vectors, rows, converted = work() if is_small else await self._off_loop(work)
        timings = Timings(tokenize_s, raw.queue_wait_s, raw.engine_s, self._clock() - finishing)
        long = long_inputs(encoded)
        self._observer.call_done(
            spec.name,
            timings,
            inputs=len(call.inputs),
            tokens=sum(tokens),
            truncated=sum(one.windows == 1 for one in long),
        )
        if long:
            self._observer.inputs_were_long(spec.name, long)
        return EmbedResult(
            vectors=vectors,
            input_tokens=tokens,
            # Of a document's chunks only the last can have lost tokens, or the first: they are counted as one.
            is_truncated=tuple(e.is_truncated for e in encoded),
            model=spec.name,
            space=way.space,
            prompt_used=prompt_name,
            timings=timings,
            converted=converted,
            provider=model.core.traits.provider,
            quantization=way.quantiser.id if CALIBRATED & set(converted) else "",
            rows=(1,) * len(vectors) if call.chunks or call.splits else rows,
            layers=way.layers,
            map_name=way.map.name if way.map is not None else "",
            long_inputs=long,
            chunks=tuple(chunk for e in encoded for chunk in e.chunks),
        )

    def _check_room(self, call: EmbedCall, model: ServedModel) -> None:
        """Refuse what would be refused behind the tokenizer, which under overload takes a good part of the time.

        Raises:
            QueueFullError: There is no room for about as many tokens.
        """
        most = model.spec.max_tokens
        characters = (len(given) // ADMITTED_CHARS_PER_TOKEN for given in call.inputs)
        model.core.check_room(sum(min(most, tokens) for tokens in characters), call.key_id)

    async def _run(
        self, call: EmbedCall, encoded: Sequence[Encoded], model: ServedModel, way: Way
    ) -> RawVectors:
        """Raw vectors of all inputs: looked up, or from the cache, or by the model."""
        outputs = model.core.outputs
        if outputs.term_weights is not None and asks_for_queries(call):
            return _looked_up(encoded, outputs)
        priority = call.priority or self._priority_by_size(len(encoded))
        is_final = self._is_final(call, way, outputs)
        run = Run(
            priority,
            way.exits,
            way.depth,
            columns=(call.dimensions or 0) if is_final else 0,
            is_half=is_final and set(call.output_dtypes) == {OutputDtype.FLOAT16},
        )
        items = as_items(call, encoded, run)
        raw = await self.fetcher.fetch(model, items, uses_cache=call.uses_cache)
        if len(items) == len(encoded):
            return raw
        return await self._off_loop(partial(together, raw, encoded, outputs))

    def _is_final(self, call: EmbedCall, way: Way, outputs: Outputs) -> bool:
        """Whether vectors are of no other use than what the call asks for: not kept, mapped or put through a head."""
        is_kept = self.fetcher.cache is not None and call.uses_cache
        return (
            call.kind is OutputKind.DENSE
            and not is_kept
            and way.map is None
            and outputs.head is None
        )

    async def _off_loop(self, work: Callable[[], Result]) -> Result:
        """Do what takes longer than other requests should wait."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _truncation(self, call: EmbedCall) -> Truncation:
        """What to do with long inputs: as asked for, else as set; windows are for vectors of texts."""
        if call.truncate is not None:
            return call.truncate
        if call.splits:
            return Truncation.WINDOWS
        is_windows = self.limits.truncate is Truncation.WINDOWS
        is_dense = call.kind is OutputKind.DENSE
        return Truncation.ERROR if is_windows and not is_dense else self.limits.truncate

    async def _encode(self, call: EmbedCall, model: ServedModel, fit: Fit) -> list[Encoded]:
        """Token ids of all inputs: a query's right here, a large call's in a front thread.

        Raises:
            InputError: An input is wrong.
        """
        work = partial(tokenize, model, call, fit)
        if (
            not call.splits
            and len(fit.prefix) + sum(len(given) for given in call.inputs) <= INLINE_CHARS
        ):
            return work()
        return await self._off_loop(work)

    def check_count(self, inputs: int) -> None:
        """Refuse more inputs than a call may have; for callers that would rather know before parsing them.

        Raises:
            RequestTooLargeError: There are more.
        """
        if inputs > self.limits.max_inputs:
            raise RequestTooLargeError(
                f"a request takes at most {self.limits.max_inputs} inputs, got {inputs}",
                param="input",
            )

    async def describe(
        self, texts: Sequence[str], *, adds_special: bool, prompt_name: str | None, model: str = ""
    ) -> list[list[Token]]:
        """The tokens of texts, none cut off, each list for a text.

        Raises:
            InputError: No such prompt, or texts far beyond the tokens of a request.
            UnknownModelError: No such model.
        """
        call = EmbedCall(texts, model=model, prompt_name=prompt_name)
        characters = sum(len(text) for text in texts)
        if characters > DESCRIBED_CHARS_PER_TOKEN * self.limits.max_tokens:
            raise RequestTooLargeError(
                f"{characters} characters are too many to describe; send fewer inputs",
                param="input",
            )
        async with self.pool.using(model) as served:
            prefix = resolve_prompt(call, served.spec)[1]
            tokenizer = served.tokenizer

            def work() -> list[list[Token]]:
                return [tokenizer.describe(prefix + t, adds_special=adds_special) for t in texts]

            return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def decode(
        self, inputs: Sequence[Sequence[int]], *, skips_special: bool, model: str = ""
    ) -> list[str]:
        """The texts of token ids.

        Raises:
            InputError: An id is outside the vocabulary; names the input.
            UnknownModelError: No such model.
        """
        async with self.pool.using(model) as served:
            tokenizer = served.tokenizer

            def work() -> list[str]:
                found = []
                for index, ids in enumerate(inputs):
                    try:
                        found.append(tokenizer.decode(ids, skips_special=skips_special))
                    except InputError as error:
                        error.input_index = index
                        raise
                return found

            return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Stop the models' workers and the front's threads."""
        self.pool.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self.fetcher.cache is not None:
            self.fetcher.cache.close()

    def _check(self, call: EmbedCall, model: ServedModel, way: Way) -> None:
        """Refuse what can be refused before tokenising."""
        if not call.inputs:
            raise EmptyInputError("'input' must hold at least one input", param="input")
        self.check_count(len(call.inputs))
        if not self.limits.allows_empty:
            for index, given in enumerate(call.inputs):
                if not given:
                    raise EmptyInputError("an input is empty", param="input", input_index=index)
        if call.splits or self._truncation(call) is Truncation.WINDOWS:
            self._check_characters(call)
        check_output(call, model, way)

    def _check_characters(self, call: EmbedCall) -> None:
        """Where nothing is cut off, all of a text is tokenised: refuse what would be refused behind that."""
        most = WINDOWED_CHARS_PER_TOKEN * self.limits.max_tokens
        characters = sum(len(given) for given in call.inputs)
        if characters > most:
            raise RequestTooLargeError(
                f"{characters} characters are too many to read in windows, max {most} per request",
                param="input",
                code="max_tokens_per_request",
            )

    def _priority_by_size(self, inputs: int) -> Priority:
        """Ingestion sends many inputs a request, queries one or a few."""
        few = inputs <= self.limits.interactive_inputs
        return Priority.INTERACTIVE if few else Priority.BULK

    def _check_tokens(self, call: EmbedCall, tokens: int) -> None:
        if call.kind is OutputKind.TOKENS and tokens > self.limits.max_token_vectors:
            raise RequestTooLargeError(
                f"Requested vectors of {tokens} tokens, max {self.limits.max_token_vectors} per request",
                param="input",
                code="max_tokens_per_request",
            )
        if tokens > self.limits.max_tokens:
            raise RequestTooLargeError(
                f"Requested {tokens} tokens, max {self.limits.max_tokens} tokens per request",
                param="input",
                code="max_tokens_per_request",
            )


def _pinned(call: EmbedCall, pin: Pin) -> EmbedCall:
    """The call with what its model's name stands for, where it does not say otherwise."""
    if pin is NO_PIN:
        return call
    has_prompt = call.prompt is not None or call.prompt_name is not None or call.prompt_role
    return dataclasses.replace(
        call,
        prompt_name=call.prompt_name if has_prompt else pin.prompt_name,
        dimensions=pin.dimensions if call.dimensions is None else call.dimensions,
    )


def _looked_up(encoded: Sequence[Encoded], outputs: Outputs) -> RawVectors:
    """Sparse queries by stored weights: no model runs."""
    parts = [outputs.sparse_query(one.ids) for one in encoded]
    return RawVectors(np.concatenate(parts), tuple(map(len, parts)), 0.0, 0.0)


def _finish(
    raw: RawVectors, call: EmbedCall, model: ServedModel, way: Way
) -> tuple[FloatArray, tuple[int, ...], dict[OutputDtype, NDArray[Any]]]:
    """Map, cut, renormalise, convert; terms and labels stay as they are."""
    if call.kind in (OutputKind.SPARSE, OutputKind.LABELS):
        return raw.vectors, raw.rows, {}
    normalize = model.spec.is_normalized if call.normalize is None else call.normalize
    mapped = raw.vectors if way.map is None else way.map.apply(raw.vectors)
    vectors, rows = finish(mapped, dimensions=call.dimensions, normalize=normalize), raw.rows
    if call.pool_factor > 1:
        ends = np.cumsum(rows)[:-1]
        parts = [pool_tokens(own, call.pool_factor) for own in np.split(vectors, ends)]
        vectors = finish(np.concatenate(parts), dimensions=None, normalize=normalize)
        rows = tuple(map(len, parts))
    return vectors, rows, {d: convert(vectors, d, way.quantiser) for d in call.output_dtypes}
