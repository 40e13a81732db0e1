"""RecipeRunner: answers a call for a recipe by calls of its parts, which run together.

Each part's call is a call of its model like any other: batched, cached and coalesced there with those of other callers.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from nestvec.engine.front.front_threads import (
    INLINE_CHARS,
    INLINE_VALUES,
    VALUES_PER_CHAR,
    FrontThreads,
)
from nestvec.engine.front.together import all_or_none
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.recipes.conditions import INPUT_TYPES
from nestvec.engine.recipes.languages import language_teller
from nestvec.engine.recipes.part_calls import (
    RunPart,
    check_call,
    check_options,
    error_of_part,
    part_call,
)
from nestvec.engine.recipes.part_gate import PartGate
from nestvec.engine.recipes.pictures import check_pictures, route_of_picture
from nestvec.engine.recipes.recipe import Combination
from nestvec.engine.recipes.recipe_slot import OpenPart, RecipeSlot
from nestvec.engine.recipes.results import combine, of_all_parts, of_routed, side_by_side
from nestvec.engine.recipes.routing import (
    TextFacts,
    counted_chars,
    fields_of,
    route_header,
    route_of,
)
from nestvec.engine.results import EmbedResult
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.engine.types import EmbedCall, Truncation
from nestvec.errors import DeadlineError, InputError, NestvecError

Result = TypeVar("Result")


class RecipeRunner:
    """Answers calls for recipes.

    Args:
        run_part: Embeds the call of one part.
        pool: Keeps the models in memory.
        limits: Bounds on one call.
        front: The threads that large work is done in.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        run_part: RunPart,
        pool: ModelPool,
        limits: ServiceLimits,
        front: FrontThreads,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_part, self._pool, self._limits = run_part, pool, limits
        self._front, self._clock = front, clock

    async def embed(self, slot: RecipeSlot, call: EmbedCall) -> EmbedResult:
        """Embed the inputs of a call by a recipe; within the time that the caller allows.

        Raises:
            InputError: The recipe, or a part of it, cannot give what the call asks for; names field, input and part.
            CapacityError: A part cannot be run now.
            InternalError: A part's runtime failed on an input.
        """
        check_call(slot.recipe, call, self._limits)
        model = await self._pool.acquire(slot)
        try:
            check_options(slot.recipe, slot.opened, call)
            check_pictures(slot.recipe, slot.opened, call, self._limits)
            if slot.recipe.combination is Combination.ROUTE:
                return await self._routed(slot, call)
            return await self._composed(slot, model, call)
        finally:
            self._pool.release(slot)

    async def _composed(self, slot: RecipeSlot, model: ServedModel, call: EmbedCall) -> EmbedResult:
        """Embed all inputs by all parts, and make one of their vectors."""
        parts, recipe = slot.opened, slot.recipe
        indices = range(len(call.inputs))
        results = await self._run(slot, [(opened, indices) for opened in parts], call)
        if recipe.combination is Combination.VIEWS:
            return side_by_side(parts, results, model, call)
        ticket = WorkTicket.until(call.deadline_s, self._clock)
        work = partial(combine, recipe, parts, results, model, call, ticket.check)
        values = sum(result.vectors.size for result in results)
        if values <= INLINE_VALUES:
            return of_all_parts(results, model, call, work())
        finished = await self._front.run(work, ticket, chars=values // VALUES_PER_CHAR)
        return of_all_parts(results, model, call, finished)

    async def _routed(self, slot: RecipeSlot, call: EmbedCall) -> EmbedResult:
        """Embed each input by the part that the rules choose for it."""
        recipe, parts = slot.recipe, slot.opened
        chosen = await self._choose(slot, call)
        by_part = {
            number: [index for index, part in enumerate(chosen) if part == number]
            for number in sorted(set(chosen))
        }
        if len({parts[number].space for number in by_part}) > 1:
            first, second = (by_part[number][0] for number in list(by_part)[:2])
            raise InputError(
                f"{recipe.name} routes inputs {min(first, second)} and {max(first, second)} of this request to models "
                "whose vectors cannot be compared; send them in requests of their own, and keep vectors of different "
                "'x-embed-space' apart",
                param="input",
                input_index=max(first, second),
            )
        named = [(parts[number], indices) for number, indices in by_part.items()]
        results = await self._run(slot, named, call)
        route = route_header(recipe, [each.name for each in parts], chosen)
        return of_routed(dict(zip(by_part, results, strict=True)), chosen, recipe.name, route)

    async def _choose(self, slot: RecipeSlot, call: EmbedCall) -> list[int]:
        """Return the part that takes each input: looked at right here where there is little, else in a thread."""
        recipe, fields = slot.recipe, fields_of(slot.recipe)
        texts = [value for value in call.inputs if not isinstance(value, Picture | MixedInput)]
        characters = self._limits.check_characters(replace(call, inputs=texts), "")
        input_type = INPUT_TYPES.get(call.prompt_role or "none", call.prompt_role or "none")
        tell_language = language_teller()[0] if "language" in fields else str
        ticket = WorkTicket.until(call.deadline_s, self._clock)

        def choose(tokenizer: Tokenizer | None) -> list[int]:
            chars = counted_chars(recipe)
            count = partial(_count_tokens, tokenizer, ticket)
            chosen = []
            for text in call.inputs:
                ticket.check()
                if isinstance(text, Picture | MixedInput):
                    chosen.append(route_of_picture(recipe, input_type))
                    continue
                facts = TextFacts(str(text), input_type, count, tell_language, chars)
                chosen.append(route_of(recipe, facts))
            return chosen

        async def off_loop(tokenizer: Tokenizer | None) -> list[int]:
            is_quick = fields <= {"characters", "input_type"} or characters <= INLINE_CHARS
            if is_quick and "language" not in fields:
                return choose(tokenizer)
            return await self._front.run(partial(choose, tokenizer), ticket, chars=characters)

        if "tokens" not in fields:
            return await off_loop(None)
        # Of the part that takes what no rule sends elsewhere: rules on tokens are mostly about what it cannot take.
        fallback = slot.opened[-1].slot
        model = await self._pool.acquire(fallback)
        try:
            return await off_loop(model.tokenizer)
        finally:
            self._pool.release(fallback)

    async def _run(
        self,
        slot: RecipeSlot,
        parts: Sequence[tuple[OpenPart, Sequence[int]]],
        call: EmbedCall,
    ) -> list[EmbedResult]:
        """Run parts together, each with some of the inputs; where one fails the others are cancelled.

        Raises:
            NestvecError: The first part's, in their order, that has failed by then; it names the part.
        """
        recipe, limits = slot.recipe, self._limits
        gate = PartGate(len(parts), call, limits)
        budget = limits.token_budget(call)
        budget.sharers = recipe.parts_per_input
        priority = limits.priority_of(call, len(call.inputs) * recipe.parts_per_input)

        async def run(opened: OpenPart, indices: Sequence[int]) -> EmbedResult:
            own = part_call(recipe, opened, call, indices, gate.admit, priority)
            try:
                return await self._run_part(opened.slot.adapted(call.adapter), own, budget)
            except NestvecError as error:
                if error is gate.refusal or isinstance(error, DeadlineError):
                    raise
                raise error_of_part(error, opened, indices) from error

        return await all_or_none([run(opened, indices) for opened, indices in parts])


def _count_tokens(tokenizer: Tokenizer | None, ticket: WorkTicket, text: str) -> int:
    """Count the tokens of a text, special tokens included and nothing cut off."""
    assert tokenizer is not None  # noqa: S101 - it is there where a rule asks for tokens
    options = TokenizeOptions(Truncation.ERROR, ticket=ticket)
    return len(tokenizer.encode_plain([text], options)[0]) + tokenizer.special_tokens
