"""EmbeddingService: what the HTTP layer, the command line and batch jobs call.

It is the engine's half before the core: resolves model and prompt, tokenizes, hands items to the core, finishes.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

from nestvec.engine.cache.read_through import ReadThroughCache
from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.front.chunking import embed_semantically, needs_sentences
from nestvec.engine.front.front_threads import (
    INLINE_CHARS,
    INLINE_VALUES,
    VALUES_PER_CHAR,
    FrontThreads,
)
from nestvec.engine.front.items import as_submission, long_inputs, merge_windows, unknown_tokens
from nestvec.engine.front.picture_inputs import (
    PictureInputs,
    has_pictures,
    merged_rows,
    pictures_of,
)
from nestvec.engine.front.prefixed_inputs import PrefixedInputs
from nestvec.engine.front.prompt_tokens import count_instruction_tokens
from nestvec.engine.front.together import all_or_none
from nestvec.engine.front.token_calls import TokenCalls
from nestvec.engine.front.validation import admit_tokens, check_output, room_for
from nestvec.engine.front.vector_plan import VectorPlan, finish_vectors, note_vectors, resolve_plan
from nestvec.engine.front.vector_sampler import VectorSampler
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.model_registry import ModelRegistry, ModelSlot
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.observer import Observer, current_trace
from nestvec.engine.outputs.adapters import ADAPTERS
from nestvec.engine.outputs.base import Finished
from nestvec.engine.recipes.composition import RecipeRunner
from nestvec.engine.recipes.recipe_slot import RecipeSlot
from nestvec.engine.results import EmbedResult, RawVectors, Timings
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.token_budget import TokenBudget
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.engine.tokenization import check_token_limit, input_tokens, resolve_prompt
from nestvec.engine.types import EmbedCall, ItemOptions
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import DeadlineError, NestvecError, QueueFullError

# Up to so many queries are weighed on the event loop, by a model of stored weights, or tokenized behind contexts.
INLINE_QUERIES: Final = 16
# What waits for the front's threads is bounded, by default, by some ten seconds of two of them.
MAX_WAITING_CHARS: Final = 20_000_000
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
        max_waiting_chars: How much may wait for them, in characters.
        clock: Monotonic seconds.

    Attributes:
        sampler: Samples the vectors that are given; None, as at first, for nobody.
    """

    def __init__(  # noqa: PLR0913 - parts that the composition root puts together
        self,
        models: ModelRegistry,
        *,
        pool: ModelPool | None = None,
        limits: ServiceLimits,
        observer: Observer,
        threads: int,
        max_waiting_chars: int = MAX_WAITING_CHARS,
        cache: VectorCache | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models = models
        self.pool = pool or ModelPool(models)
        self.limits = limits
        self.threads = threads
        self.front = FrontThreads(threads, max_waiting_chars, clock)
        self._observer = observer
        self._clock = clock
        self.sampler: VectorSampler | None = None
        self.read_through = ReadThroughCache(cache, self.front)
        self._recipes = RecipeRunner(self._embed_by, self.pool, limits, self.front, clock)
        self.token_calls = TokenCalls(self.pool, limits, self.front, clock)

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
        if call.splits and needs_sentences(call):
            return await embed_semantically(self, call)
        slot = self.models.find(call.model, call.kind)
        remaining_s = None if call.deadline_s is None else call.deadline_s - self._clock()
        try:
            async with asyncio.timeout(remaining_s):
                if isinstance(slot, RecipeSlot):
                    return await self._recipes.embed(slot, call)
                return await self._embed_by(slot.adapted(call.adapter), call)
        except TimeoutError:
            raise DeadlineError("The deadline passed before the vectors were ready.") from None

    async def _embed_by(
        self, slot: ModelSlot, call: EmbedCall, budget: TokenBudget | None = None
    ) -> EmbedResult:
        """Embed by one model, loaded first where need be; a part of a recipe within the budget of all parts."""
        model = await self.pool.acquire(slot)
        try:
            preset = slot.preset(call.model)
            call, model = preset.fill(call), preset.variant(model)
            allows = self.limits.allows_untrained_layers
            plan = resolve_plan(call, model, allows_untrained=allows)
            self.limits.check_inputs(call)
            check_output(call, model, plan)
            if call.refuses_wider_limit:
                check_token_limit(call.max_tokens, model.tokenizer)
            return await self._embed(call, model, plan, budget)
        finally:
            self.pool.release(slot)

    async def _embed(
        self, call: EmbedCall, model: ServedModel, plan: VectorPlan, budget: TokenBudget | None
    ) -> EmbedResult:
        spec = model.spec
        prompt_name, prompt = resolve_prompt(call, spec)
        started_s = self._clock()
        pictures = pictures_of(call, spec, plan.exits) if has_pictures(call) else None
        texts = call if pictures is None else pictures.texts
        characters = self.limits.check_characters(texts, prompt, budget.sharers if budget else 1)
        ticket = WorkTicket.until(call.deadline_s, self._clock)
        options = TokenizeOptions(
            self.limits.truncation_of(call),
            call.max_tokens,
            call.adds_special_tokens,
            prompt,
            call.max_second_tokens,
            ticket,
            # What is so short is counted once it is all there.
            None if characters <= INLINE_CHARS else budget or self.limits.token_budget(call),
        )
        encoding = self._encode(texts, model, options, characters, started_s)
        if pictures is not None:
            encoding = self._encode_pictures(call, pictures, model, encoding, options, started_s)
        encoded = await encoding
        tokens = tuple(count for value in encoded for count in input_tokens(value))
        await admit_tokens(call, encoded, model, self.limits, sum(tokens))
        tokenize_s = self._clock() - started_s
        raw = await self._run(call, encoded, model, plan, ticket, started_s, pictures)
        finishing_s = self._clock()
        finished = await self._finish(raw, call, model, plan, ticket)
        took_s = self._clock() - finishing_s
        timings = Timings(tokenize_s, raw.queue_wait_s, raw.engine_s, took_s, started_s)
        unknown = unknown_tokens(encoded, model.tokenizer.told_unknown_id)
        of_prompt = await count_instruction_tokens(call, prompt, encoded, model, self.front, ticket)
        note_vectors(self._observer, call, spec, plan, len(finished.vectors), prompt_name)
        if self.sampler is not None and plan.map is None and not plan.exits and pictures is None:
            self.sampler.note(call, spec, prompt_name, raw.vectors)
        result = EmbedResult(
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
            rows=(1,) * len(finished.vectors) if call.chunks or call.splits else finished.rows,
            layers=plan.layers,
            map_name=plan.map.name if plan.map else "",
            labels=plan.map.labels if plan.map else (),
            long_inputs=long_inputs(encoded),
            unknown_tokens=unknown,
            instruction_tokens=of_prompt,
            chunks=tuple(chunk for value in encoded for chunk in value.chunks),
        )
        self._tell(result, len(call.inputs))
        return finished.spread(result)

    def _tell(self, result: EmbedResult, inputs: int) -> None:
        """Tell the observer of a call of so many inputs that was answered."""
        long, model = result.long_inputs, result.model
        self._observer.call_done(
            model,
            result.timings,
            inputs=inputs,
            tokens=sum(result.input_tokens),
            truncated=sum(value.windows == 1 for value in long),
        )
        if long:
            self._observer.inputs_were_long(model, long)
        if unknown := sum(result.unknown_tokens):
            self._observer.tokens_were_unknown(model, unknown)

    async def _encode(
        self,
        call: EmbedCall,
        model: ServedModel,
        options: TokenizeOptions,
        characters: int,
        arrived_s: float,
    ) -> list[Encoded]:
        """Token ids of all inputs: a query's right here, a large call's in a thread.

        Raises:
            InputError: An input cannot be tokenized or is too long.
            QueueFullError: Too much waits to be tokenized or run.
        """
        work = partial(
            model.adapter(call.kind).tokenize, model.tokenizer, model.spec, call, options
        )
        is_short = characters <= INLINE_CHARS and len(call.context) <= INLINE_QUERIES
        if is_short and not call.splits:
            # Nothing comes between this and the core's own look at the queue.
            return work()
        with room_for(call, model, self.limits, len(options.prompt), arrived_s):
            try:
                return await self.front.run(work, options.ticket, chars=characters)
            except QueueFullError:
                items = len(call.inputs)
                self._observer.items_dropped(model.spec.name, items=items, reason="queue_full")
                raise

    async def _encode_pictures(
        self,
        call: EmbedCall,
        pictures: PictureInputs | PrefixedInputs,
        model: ServedModel,
        encode_texts: Coroutine[Any, Any, list[Encoded]],
        options: TokenizeOptions,
        arrived_s: float,
    ) -> list[Encoded]:
        """Token ids of all texts and pixels of all pictures, in the order of the call's inputs.

        Raises:
            InputError: An input cannot be tokenized or decoded, or is too long or large.
            QueueFullError: Too much waits to be decoded or run.
        """
        if isinstance(pictures, PrefixedInputs):
            limits, front = self.limits, self.front
            return await pictures.encode(model, encode_texts, options, limits, front, arrived_s)
        try:
            texts = await encode_texts
        except NestvecError as error:
            pictures.at_place(error)
            raise
        self.limits.check_tokens(call, pictures.fewest_tokens)
        priority = self.limits.priority_of(call, len(call.inputs))
        expected = ItemOptions(call.key_id, priority, call.deadline_s, arrived_s=arrived_s)
        with model.core.expecting(min(pictures.tokens, self.limits.max_tokens), expected):
            encoded = await pictures.encode(
                self.front,
                self.limits.pictures,
                lambda: WorkTicket.until(call.deadline_s, self._clock),
                self.limits.token_budget(call),
            )
        return pictures.joined(texts, encoded)

    async def _run(  # noqa: PLR0913, PLR0917 - what a call has come to by then
        self,
        call: EmbedCall,
        encoded: Sequence[Encoded],
        model: ServedModel,
        plan: VectorPlan,
        ticket: WorkTicket,
        arrived_s: float,
        pictures: PictureInputs | PrefixedInputs | None,
    ) -> RawVectors:
        """Raw vectors of all inputs: looked up, or from the cache, or by the model."""
        pooler = model.core.pooler
        adapter = model.adapter(call.kind)
        is_looked_up = pooler.term_weights is not None or adapter is model.lexical
        if is_looked_up and len(encoded) > INLINE_QUERIES:
            look_up = partial(adapter.look_up, call, encoded, model.spec, pooler)
            chars = sum(len(each.ids) for each in encoded)
            known = await self.front.run(look_up, ticket, chars=chars)
        else:
            known = adapter.look_up(call, encoded, model.spec, pooler)
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
            arrived_s=arrived_s,
            trace=current_trace.get(),
        )
        submission = as_submission(encoded, options)
        fetch = partial(self.read_through.fetch, model, uses_cache=call.uses_cache)
        if pictures is None:
            raw = await fetch(submission)
        else:
            parts = pictures.submissions(submission)
            rows = await all_or_none([fetch(part) for _, part in parts])
            raw = merged_rows([(numbers, of) for (numbers, _), of in zip(parts, rows, strict=True)])
        if len(submission.items) == len(encoded):
            return raw
        work = partial(merge_windows, raw, encoded, pooler, ticket.check)
        return await self.front.run(work, ticket, chars=raw.vectors.size // VALUES_PER_CHAR)

    def _is_final(self, call: EmbedCall, plan: VectorPlan, pooler: Pooler) -> bool:
        """Whether vectors are of no other use than what the call asks for: not kept, mapped or put through a head."""
        is_kept = self.read_through.cache is not None and call.uses_cache
        return (
            ADAPTERS[call.kind].is_text_vector
            and not is_kept
            and plan.map is None
            and not call.groups
            and pooler.head is None
        )

    async def _finish(
        self,
        raw: RawVectors,
        call: EmbedCall,
        model: ServedModel,
        plan: VectorPlan,
        ticket: WorkTicket,
    ) -> Finished:
        """Map, cut, renormalize and convert: little right here, much in a thread."""
        work = partial(finish_vectors, raw, call, model, plan, ticket.check)
        if raw.vectors.size <= INLINE_VALUES and plan.pool_factor == 1:
            return work()
        chars = raw.vectors.size // VALUES_PER_CHAR * plan.pool_factor
        return await self.front.run(work, ticket, chars=int(min(chars, raw.vectors.size)))

    def check_count(self, inputs: int) -> None:
        """Refuse more inputs than a call may have; for callers that would rather know before parsing them.

        Raises:
            RequestTooLargeError: There are more.
        """
        self.limits.check_count(inputs)

    def close(self) -> None:
        """Stop the models' workers and the service's threads."""
        self.pool.close()
        self.front.close()
        if self.read_through.cache is not None:
            self.read_through.cache.close()
