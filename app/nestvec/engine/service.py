"""EmbeddingService: what the HTTP layer, the command line and batch jobs call.

It is the engine's half before the core: resolve model and prompt, tokenize off the event loop, hand items to the core,
cut and renormalize.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from nestvec.engine.cache.read_through import ReadThroughCache
from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.items import as_submission, long_inputs, merge_windows
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.model_registry import ModelRegistry
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.observer import Observer
from nestvec.engine.outputs.adapters import ADAPTERS
from nestvec.engine.outputs.base import Finished
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.token_report import (
    DescribedToken,
    count_unusual,
    decode_inputs,
    describe_tokens,
)
from nestvec.engine.tokenization import check_token_limit, input_tokens, resolve_prompt
from nestvec.engine.types import EmbedCall, EmbedResult, ItemOptions, RawVectors, Timings
from nestvec.engine.validation import check_output
from nestvec.engine.vector_plan import VectorPlan, resolve_plan
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import DeadlineError

Result = TypeVar("Result")

# Up to so many values are finished on the event loop: about 0.2 ms; more go to a thread.
INLINE_VALUES: Final = 32 * 1024

# Up to so many characters are tokenized on the event loop: at most 0.3 ms, and less than a thread's wake-up costs.
INLINE_CHARS: Final = 1024

# To guess whether a call has room: more than any language has on average, so that the guess is below the truth.
ADMITTED_CHARS_PER_TOKEN: Final = 6

CALIBRATED: Final = {OutputDtype.INT8, OutputDtype.UINT8}


class EmbeddingService:
    """Takes calls, gives vectors.

    Args:
        models: The models served.
        pool: Keeps them in memory; by default as long as they are there.
        limits: Bounds on one call.
        observer: Told what happened.
        cache: Raw vectors of texts that were run before; None keeps nothing.
        threads: Number of threads for tokenizing and post-processing.
        clock: Monotonic seconds.
    """

    def __init__(  # noqa: PLR0913 - parts that the composition root puts together
        self,
        models: ModelRegistry,
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
        self.threads = threads
        self._observer = observer
        self._clock = clock
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="nestvec-service")
        self.read_through = ReadThroughCache(cache, self._executor)

    async def embed(self, call: EmbedCall) -> EmbedResult:
        """Embed the inputs of one call.

        All inputs or none: a failing input fails its call, never another's.

        Raises:
            InputError: The call asks for something that cannot be; names the field or the input.
            UnknownModelError: No model has the name.
            CapacityError: The queue is full, the deadline passed, the server is shutting down, or the model cannot be
                loaded.
            InternalError: The runtime failed on an input.
        """
        slot = self.models.find(call.model, call.kind).adapted(call.adapter)
        remaining_s = None if call.deadline_s is None else call.deadline_s - self._clock()
        try:
            async with asyncio.timeout(remaining_s):
                model = await self.pool.acquire(slot)
                try:
                    call = slot.preset(call.model).fill(call)
                    plan = resolve_plan(
                        call, model, allows_untrained=self.limits.allows_untrained_layers
                    )
                    self.limits.check_inputs(call)
                    check_output(call, model, plan)
                    return await self._embed(call, model, plan)
                finally:
                    self.pool.release(slot)
        except TimeoutError:
            raise DeadlineError("The deadline passed before the vectors were ready.") from None

    async def _embed(self, call: EmbedCall, model: ServedModel, plan: VectorPlan) -> EmbedResult:
        spec = model.spec
        prompt_name, prompt = resolve_prompt(call, spec)
        if call.refuses_wider_limit:
            check_token_limit(call.max_tokens, model.tokenizer)
        options = TokenizeOptions(
            self.limits.truncation_of(call),
            call.max_tokens,
            call.adds_special_tokens,
            prompt,
            call.max_second_tokens,
            self._seconds_left(call),
        )
        started_s = self._clock()
        _check_room(call, model)
        encoded = await self._encode(call, model, options)
        tokens = tuple(count for value in encoded for count in input_tokens(value))
        self.limits.check_tokens(call, sum(tokens))
        tokenize_s = self._clock() - started_s
        raw = await self._run(call, encoded, model, plan)
        finishing_s = self._clock()
        finished = await self._finish(raw, call, model, plan)
        timings = Timings(tokenize_s, raw.queue_wait_s, raw.engine_s, self._clock() - finishing_s)
        long = long_inputs(encoded)
        self._observer.call_done(
            spec.name,
            timings,
            inputs=len(call.inputs),
            tokens=sum(tokens),
            truncated=sum(value.windows == 1 for value in long),
        )
        if long:
            self._observer.inputs_were_long(spec.name, long)
        is_documents = bool(call.chunks or call.splits)
        return EmbedResult(
            vectors=finished.vectors,
            input_tokens=tokens,
            # Of a document's chunks only the last can have lost tokens, or the first: they are counted as one.
            is_truncated=tuple(value.is_truncated for value in encoded),
            model=spec.name,
            space=plan.space,
            prompt_used=prompt_name,
            timings=timings,
            converted=finished.converted,
            provider=model.core.backend_info.provider,
            quantization=plan.quantizer.id if CALIBRATED & set(finished.converted) else "",
            rows=(1,) * len(finished.vectors) if is_documents else finished.rows,
            layers=plan.layers,
            map_name=plan.map.name if plan.map is not None else "",
            long_inputs=long,
            chunks=tuple(chunk for value in encoded for chunk in value.chunks),
        )

    async def _encode(
        self, call: EmbedCall, model: ServedModel, options: TokenizeOptions
    ) -> list[Encoded]:
        """Token ids of all inputs: a query's right here, a large call's in a thread.

        Raises:
            InputError: An input cannot be tokenized or is too long.
        """
        work = partial(ADAPTERS[call.kind].tokenize, model.tokenizer, model.spec, call, options)
        characters = len(options.prompt) + sum(len(value) for value in call.inputs)
        is_small = not call.splits and characters <= INLINE_CHARS
        return work() if is_small else await self._off_loop(work)

    def _seconds_left(self, call: EmbedCall) -> Callable[[], float] | None:
        """What tells how long it is to the call's deadline; None if it has none."""
        deadline_s = call.deadline_s
        return None if deadline_s is None else lambda: deadline_s - self._clock()

    async def _run(
        self, call: EmbedCall, encoded: Sequence[Encoded], model: ServedModel, plan: VectorPlan
    ) -> RawVectors:
        """Raw vectors of all inputs: looked up, or from the cache, or by the model."""
        pooler = model.core.pooler
        known = ADAPTERS[call.kind].look_up(call, encoded, pooler)
        if known is not None:
            return known
        is_final = self._is_final(call, plan, pooler)
        options = ItemOptions(
            call.key_id,
            self.limits.priority_of(call, len(encoded)),
            call.deadline_s,
            call.kind,
            plan.exits,
            plan.layer_share,
            columns=(call.dimensions or 0) if is_final else 0,
            is_half=is_final and set(call.output_dtypes) == {OutputDtype.FLOAT16},
        )
        submission = as_submission(encoded, options)
        raw = await self.read_through.fetch(model, submission, uses_cache=call.uses_cache)
        if len(submission.items) == len(encoded):
            return raw
        return await self._off_loop(partial(merge_windows, raw, encoded, pooler))

    def _is_final(self, call: EmbedCall, plan: VectorPlan, pooler: Pooler) -> bool:
        """Whether vectors are of no other use than what the call asks for: not kept, mapped or put through a head."""
        is_kept = self.read_through.cache is not None and call.uses_cache
        return (
            ADAPTERS[call.kind].is_text_vector
            and not is_kept
            and plan.map is None
            and pooler.head is None
        )

    async def _finish(
        self, raw: RawVectors, call: EmbedCall, model: ServedModel, plan: VectorPlan
    ) -> Finished:
        """Map, cut, renormalize and convert: little right here, much in a thread."""
        work = partial(_finished, raw, call, model, plan)
        is_small = raw.vectors.size <= INLINE_VALUES and call.pool_factor == 1
        return work() if is_small else await self._off_loop(work)

    async def _off_loop(self, work: Callable[[], Result]) -> Result:
        """Do in a thread what takes longer than other requests should wait."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def check_count(self, inputs: int) -> None:
        """Refuse more inputs than a call may have; for callers that would rather know before parsing them.

        Raises:
            RequestTooLargeError: There are more.
        """
        self.limits.check_count(inputs)

    async def describe(
        self,
        texts: Sequence[str],
        *,
        adds_special_tokens: bool,
        prompt_name: str | None,
        model: str = "",
    ) -> list[list[DescribedToken]]:
        """Describe the tokens of each text; none is cut off.

        Raises:
            InputError: There is no such prompt, or the texts are far beyond the tokens of a request.
            UnknownModelError: No model has the name.
        """
        call = EmbedCall(texts, model=model, prompt_name=prompt_name)
        self.limits.check_described(texts)
        async with self.pool.using(model) as served:
            prefix = resolve_prompt(call, served.spec)[1]
            tokenizer = served.tokenizer

            def work() -> list[list[DescribedToken]]:
                return [
                    describe_tokens(
                        tokenizer, prefix + text, adds_special_tokens=adds_special_tokens
                    )
                    for text in texts
                ]

            return await self._off_loop(work)

    async def decode(
        self, inputs: Sequence[Sequence[int]], *, skips_special_tokens: bool, model: str = ""
    ) -> list[str]:
        """Turn the token ids of each input back into text.

        Raises:
            InputError: An id is outside the vocabulary; names the input.
            UnknownModelError: No model has the name.
        """
        async with self.pool.using(model) as served:
            return await self._off_loop(
                partial(
                    decode_inputs,
                    served.tokenizer,
                    inputs,
                    skips_special_tokens=skips_special_tokens,
                )
            )

    async def count_unusual_ids(self, inputs: Sequence[Sequence[int]], model: str = "") -> int:
        """Count the arrays of token ids that the model's tokenizer would not have made of their text.

        Raises:
            UnknownModelError: No model has the name.
        """
        async with self.pool.using(model) as served:
            return await self._off_loop(partial(count_unusual, served.tokenizer, inputs))

    def close(self) -> None:
        """Stop the models' workers and the service's threads."""
        self.pool.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        if self.read_through.cache is not None:
            self.read_through.cache.close()


def _check_room(call: EmbedCall, model: ServedModel) -> None:
    """Refuse what would be refused behind the tokenizer, which under overload takes a good part of the time.

    Raises:
        QueueFullError: There is no room for about as many tokens.
    """
    max_tokens = model.spec.max_tokens
    guesses = (len(value) // ADMITTED_CHARS_PER_TOKEN for value in call.inputs)
    model.core.check_queue_bound(sum(min(max_tokens, tokens) for tokens in guesses), call.key_id)


def _finished(raw: RawVectors, call: EmbedCall, model: ServedModel, plan: VectorPlan) -> Finished:
    """The rows of a call as they are given out."""
    normalize = model.spec.is_normalized if call.normalize is None else call.normalize
    if plan.map is not None:
        raw = dataclasses.replace(raw, vectors=plan.map.apply(raw.vectors))
    return ADAPTERS[call.kind].finish(raw, call, plan.quantizer, normalize=normalize)
