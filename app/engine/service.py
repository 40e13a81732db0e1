"""EmbeddingService: what the HTTP layer, the command line and batch jobs call.

The front half of the engine: resolve model and prompt, tokenise off the event loop, hand items to the core,
cut and renormalise.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

from app.engine.postprocess import finish
from app.engine.registry import Models, ModelSpec, ServedModel
from app.engine.tokenizer import Encoded
from app.engine.types import (
    EmbedCall,
    EmbedResult,
    Item,
    Observer,
    OutputKind,
    Priority,
    Timings,
    Truncation,
)
from app.errors import DeadlineError, InputError, RequestTooLargeError

# Up to so many values are finished on the event loop: about 0.2 ms; more go to a thread.
INLINE_VALUES: Final = 32 * 1024

# Up to so many characters are tokenised on the event loop: at most 0.3 ms, and less than a thread's wake-up costs.
INLINE_CHARS: Final = 1024

# Prompt names that serve a role, in the order tried (api-contract 4.7).
ROLE_PROMPTS: Final[Mapping[str, tuple[str, ...]]] = {
    "query": ("query", "s2p_query", "retrieval.query", "search_query"),
    "passage": ("document", "passage", "retrieval.passage", "search_document"),
    "classify": ("classification", "Classification"),
    "cluster": ("clustering", "separation", "Clustering"),
    "similarity": ("STS", "text-matching", "sts"),
}


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Bounds on one call.

    Attributes:
        max_inputs: Most inputs in one call.
        max_tokens: Most tokens over all inputs of a call, counted after truncation.
        truncate: For calls that do not say.
        interactive_inputs: Calls of more inputs than this are bulk, unless they say otherwise.
        allows_empty: Whether an empty text is embedded (special tokens only) or refused.
    """

    max_inputs: int = 2048
    max_tokens: int = 300_000
    truncate: Truncation = Truncation.ERROR
    interactive_inputs: int = 16
    allows_empty: bool = True


class EmbeddingService:
    """Takes calls, gives vectors.

    Args:
        models: What is served.
        limits: Bounds on one call.
        observer: Told what happened.
        threads: Threads for tokenising and post-processing.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        models: Models,
        *,
        limits: ServiceLimits,
        observer: Observer,
        threads: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models = models
        self.limits = limits
        self._observer = observer
        self._clock = clock
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="nestvec-front")

    async def embed(self, call: EmbedCall) -> EmbedResult:
        """Embed the inputs of one call.

        All inputs or none: a failing input fails its call, never another's.

        Raises:
            InputError: Something asked for cannot be; names the field or the input.
            UnknownModelError: No such model.
            CapacityError: Queue full, deadline passed, or shutting down.
            InternalError: The runtime failed on an input.
        """
        model = self.models.resolve(call.model)
        self._check(call, model.spec)
        remaining_s = None if call.deadline_s is None else call.deadline_s - self._clock()
        try:
            async with asyncio.timeout(remaining_s):
                return await self._embed(call, model)
        except TimeoutError:
            raise DeadlineError("The deadline passed before the vectors were ready.") from None

    async def _embed(self, call: EmbedCall, model: ServedModel) -> EmbedResult:
        loop = asyncio.get_running_loop()
        spec = model.spec
        prompt_name, prompt = _resolve_prompt(call, spec)
        truncate = call.truncate or self.limits.truncate
        started = self._clock()
        encoded = await self._encode(call, model, prompt, truncate)
        tokens = tuple(len(e.ids) for e in encoded)
        self._check_tokens(sum(tokens))
        tokenize_s = self._clock() - started
        priority = call.priority or self._priority_by_size(len(encoded))
        items = [_as_item(call, priority, index, e) for index, e in enumerate(encoded)]
        raw = await model.core.submit(items)
        truncated = tuple(e.is_truncated for e in encoded)
        finishing = self._clock()
        normalize = spec.is_normalized if call.normalize is None else call.normalize
        work = partial(finish, raw.vectors, dimensions=call.dimensions, normalize=normalize)
        small = raw.vectors.size <= INLINE_VALUES
        vectors = work() if small else await loop.run_in_executor(self._pool, work)
        timings = Timings(tokenize_s, raw.queue_wait_s, raw.engine_s, self._clock() - finishing)
        self._observer.call_done(
            spec.name, timings, inputs=len(items), tokens=sum(tokens), truncated=sum(truncated)
        )
        return EmbedResult(
            vectors=vectors,
            input_tokens=tokens,
            is_truncated=truncated,
            model=spec.name,
            space=spec.space,
            prompt_used=prompt_name,
            timings=timings,
        )

    async def _encode(
        self, call: EmbedCall, model: ServedModel, prompt: str, truncate: Truncation
    ) -> list[Encoded]:
        """Token ids of all inputs: a query's right here, a large call's in a front thread.

        Raises:
            InputError: An input is wrong.
        """
        work = partial(_tokenize, model, call, prompt, truncate)
        if len(prompt) + sum(len(given) for given in call.inputs) <= INLINE_CHARS:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

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

    def close(self) -> None:
        """Stop the models' workers and the front's threads."""
        for model in self.models.all():
            model.core.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _check(self, call: EmbedCall, spec: ModelSpec) -> None:
        """Refuse what can be refused before tokenising."""
        if not call.inputs:
            raise InputError("'input' must hold at least one input", param="input")
        self.check_count(len(call.inputs))
        if not self.limits.allows_empty:
            for index, given in enumerate(call.inputs):
                if not given:
                    raise InputError("an input is empty", param="input", input_index=index)
        if call.dimensions is not None and not 1 <= call.dimensions <= spec.hidden_size:
            raise InputError(
                f"Invalid value for 'dimensions' = {call.dimensions}. Must be 1 to {spec.hidden_size}; "
                f"must be less than or equal to {spec.hidden_size} for this model.",
                param="dimensions",
            )
        if call.kind is not OutputKind.DENSE:
            raise InputError("this model gives dense vectors only", param="kind")
        for field_name in ("layers", "adapter", "map_id"):
            if getattr(call, field_name) is not None:
                public = field_name.removesuffix("_id")
                raise InputError(f"'{public}' is not available for this model", param=public)

    def _priority_by_size(self, inputs: int) -> Priority:
        """Ingestion sends many inputs a request, queries one or a few."""
        few = inputs <= self.limits.interactive_inputs
        return Priority.INTERACTIVE if few else Priority.BULK

    def _check_tokens(self, tokens: int) -> None:
        if tokens > self.limits.max_tokens:
            raise RequestTooLargeError(
                f"Requested {tokens} tokens, max {self.limits.max_tokens} tokens per request",
                param="input",
                code="max_tokens_per_request",
            )


def _resolve_prompt(call: EmbedCall, spec: ModelSpec) -> tuple[str | None, str]:
    """Which prompt a call means: (its name, its text).

    Raises:
        InputError: The model has no prompt of that name.
    """
    if call.prompt is not None:
        return "", call.prompt
    if call.prompt_name is not None:
        if call.prompt_name not in spec.prompts:
            known = ", ".join(sorted(spec.prompts)) or "none"
            raise InputError(
                f"this model has no prompt of that name; it has: {known}", param="prompt_name"
            )
        return call.prompt_name, spec.prompts[call.prompt_name]
    if call.prompt_role is not None:
        for name in ROLE_PROMPTS.get(call.prompt_role, (call.prompt_role,)):
            if name in spec.prompts:
                return name, spec.prompts[name]
        return None, ""
    if spec.default_prompt is not None:
        return spec.default_prompt, spec.prompts[spec.default_prompt]
    return None, ""


def _tokenize(
    model: ServedModel, call: EmbedCall, prompt: str, truncate: Truncation
) -> list[Encoded]:
    """Token ids of all inputs."""
    tokenizer = model.tokenizer
    if not isinstance(call.inputs[0], str):
        # Ids are taken as given: a prompt is text and belongs to text inputs.
        return tokenizer.check_ids(cast("Sequence[Sequence[int]]", call.inputs), truncate=truncate)
    encoded = tokenizer.encode_texts(
        cast("Sequence[str]", call.inputs), truncate=truncate, prefix=prompt
    )
    if not prompt or model.spec.pools_prompt:
        return encoded
    skip = tokenizer.count_prompt_tokens(prompt)
    return [dataclasses.replace(e, skip_tokens=min(skip, len(e.ids) - 1)) for e in encoded]


def _as_item(call: EmbedCall, priority: Priority, index: int, encoded: Encoded) -> Item:
    return Item(
        ids=encoded.ids,
        index=index,
        skip_tokens=encoded.skip_tokens,
        key_id=call.key_id,
        priority=priority,
        deadline_s=call.deadline_s,
        kind=call.kind,
        layers=call.layers,
        adapter=call.adapter,
        map_id=call.map_id,
    )
