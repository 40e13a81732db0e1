"""What callers ask of a model's tokenizer alone: the tokens of texts, the text of ids; done off the event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from nestvec.engine.front.front_threads import FrontThreads
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.text.token_report import (
    MAX_CHECKED_IDS,
    DescribedText,
    count_unusual,
    decode_inputs,
    describe_tokens,
)
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.engine.tokenization import resolve_prompt
from nestvec.engine.types import EmbedCall
from nestvec.errors import DeadlineError, UnsupportedError
from nestvec.system.public_names import public_name

Result = TypeVar("Result")


class TokenCalls:
    """Describes, decodes and checks tokens.

    Args:
        pool: Keeps the models in memory.
        limits: Bounds on one call.
        front: The threads that the work is done in.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        pool: ModelPool,
        limits: ServiceLimits,
        front: FrontThreads,
        clock: Callable[[], float],
    ) -> None:
        self._pool, self._limits, self._front, self._clock = pool, limits, front, clock

    async def describe(
        self,
        texts: Sequence[str],
        *,
        adds_special_tokens: bool,
        prompt_name: str | None,
        prompt: str | None = None,
        model: str = "",
        deadline_s: float | None = None,
    ) -> list[DescribedText]:
        """Describe the tokens of each text; none is cut off.

        Raises:
            DeadlineError: The deadline passed.
            QueueFullError: Too much waits to be tokenized.
            InputError: There is no such prompt, or the texts are far beyond the tokens of a request.
            UnknownModelError: No model has the name.
        """
        call = EmbedCall(texts, model=model, prompt_name=prompt_name)
        async with self._using(model) as served:
            prefix = resolve_prompt(call, served.spec)[1] if prompt is None else prompt
            tokenizer = served.tokenizer
            chars = self._limits.check_described(texts, prefix)

            def work(ticket: WorkTicket) -> list[DescribedText]:
                described = []
                for text in texts:
                    ticket.check()
                    described.append(
                        describe_tokens(
                            tokenizer, prefix + text, adds_special_tokens=adds_special_tokens
                        )
                    )
                return described

            return await self._off_loop(work, deadline_s, chars=chars)

    async def decode(
        self,
        inputs: Sequence[Sequence[int]],
        *,
        skips_special_tokens: bool,
        model: str = "",
        deadline_s: float | None = None,
    ) -> list[str]:
        """Turn the token ids of each input back into text.

        Raises:
            DeadlineError: The deadline passed.
            QueueFullError: Too much waits for the threads.
            InputError: An id is outside the vocabulary; names the input.
            UnknownModelError: No model has the name.
        """
        async with self._using(model) as served:
            tokenizer = served.tokenizer

            def work(ticket: WorkTicket) -> list[str]:
                return decode_inputs(
                    tokenizer,
                    inputs,
                    skips_special_tokens=skips_special_tokens,
                    check=ticket.check,
                )

            return await self._off_loop(work, deadline_s, chars=sum(map(len, inputs)))

    async def count_unusual_ids(self, inputs: Sequence[Sequence[int]], model: str = "") -> int:
        """Count the arrays of token ids that the model's tokenizer would not have made of their text.

        Raises:
            UnknownModelError: No model has the name.
        """
        async with self._pool.using(model) as served:
            tokenizer = served.tokenizer

            def work(ticket: WorkTicket) -> int:
                return count_unusual(tokenizer, inputs, ticket.check)

            chars = min(sum(map(len, inputs)), MAX_CHECKED_IDS)
            return await self._off_loop(work, None, chars=chars)

    @asynccontextmanager
    async def _using(self, name: str) -> AsyncIterator[ServedModel]:
        """Hold a model for as long as the block runs.

        Raises:
            UnknownModelError: No model has the name.
            UnsupportedError: It is a recipe, whose models have tokenizers of their own.
        """
        slot = self._pool.models.find(name)
        if slot.parts:
            raise UnsupportedError(
                f"{slot.name} is a recipe, whose models have tokenizers of their own; name one of these: "
                f"{', '.join(dict.fromkeys(public_name(part.name) for part in slot.parts))}"
            )
        async with self._pool.using(name) as served:
            yield served

    async def _off_loop(
        self,
        work: Callable[[WorkTicket], Result],
        deadline_s: float | None,
        *,
        chars: int,
    ) -> Result:
        """Do in a thread what no call of `embed` needs.

        Raises:
            DeadlineError: The deadline passed.
            QueueFullError: Too much waits for the threads.
        """
        ticket = WorkTicket.until(deadline_s, self._clock)
        try:
            async with asyncio.timeout(ticket.seconds_left()):
                return await self._front.run(partial(work, ticket), ticket, chars=chars)
        except TimeoutError:
            raise DeadlineError("The deadline passed before the answer was ready.") from None
