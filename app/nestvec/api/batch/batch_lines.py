"""Lines of a batch, answered as `POST /v1/embeddings` would answer them."""

import asyncio
import dataclasses
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, cast

import orjson

from nestvec.api.dialect_table import OPENAI
from nestvec.api.dialects.openai import Told, embeddings_json, vectors_json
from nestvec.api.dialects.openai_body import FIELDS, parse_call, parse_encoding, refuse_chat
from nestvec.api.error_handlers import status_of
from nestvec.api.http.auth import see_models_of
from nestvec.api.requests.api_request import check_fields, decode_tokens
from nestvec.api.requests.fields import parse_inputs, text_field
from nestvec.api.state import ApiState, Phase
from nestvec.engine.types import EmbedCall, EmbedResult, LongInput, Priority
from nestvec.errors import (
    InputError,
    InternalError,
    MemoryShortError,
    NestvecError,
    NotReadyError,
    QueueFullError,
    RateLimitError,
)
from nestvec.jobs.types import LineResult

# One text a line is the usual form; such lines of one group that ask for the same go as one call.
PER_LINE: Final = frozenset({"input", "user"})
MOST_CALL_CHARS: Final = 200_000
MOST_WAIT_S: Final = 5.0
RUNNING: Final = (Phase.READY, Phase.RECOVERING)


@dataclasses.dataclass(frozen=True, slots=True)
class BatchLines:
    """Answers lines with the engine.

    Attributes:
        state: The application's.
    """

    state: ApiState

    async def answer(
        self, bodies: Sequence[Mapping[str, Any]], *, owner: str
    ) -> Sequence[LineResult]:
        """A result for each body, in order; a failing line fails alone.

        Raises:
            NotReadyError: The server is shutting down.
        """
        see_models_of(self.state.keys.limits_of(owner))
        found: list[LineResult | None] = [None] * len(bodies)
        works = [self._fill(found, bodies, places, owner) for places in _alike(bodies)]
        await asyncio.gather(*works)
        return cast("list[LineResult]", found)

    async def _fill(
        self,
        found: list[LineResult | None],
        bodies: Sequence[Mapping[str, Any]],
        places: Sequence[int],
        owner: str,
    ) -> None:
        """Answer bodies that ask for the same, as one call if that can be."""
        if len(places) > 1:
            try:
                results = await self._together([bodies[place] for place in places], owner)
            except (InputError, RateLimitError, MemoryShortError):
                pass  # one of them is at fault, or the key has no more: each for itself
            else:
                for place, result in zip(places, results, strict=True):
                    found[place] = result
                return
        results = await asyncio.gather(*(self._alone(bodies[place], owner) for place in places))
        for place, result in zip(places, results, strict=True):
            found[place] = result

    async def _together(self, bodies: Sequence[Mapping[str, Any]], owner: str) -> list[LineResult]:
        check_fields(bodies[0], FIELDS, self.state, OPENAI)
        texts = [body["input"] for body in bodies]
        result = await self._embed(parse_call(bodies[0], texts), owner)
        answers = []
        for row, body in enumerate(bodies):
            answers.append(await _line(body, result, slice(row, row + 1)))
        return answers

    async def _alone(self, body: Mapping[str, Any], owner: str) -> LineResult:
        is_list = True
        try:
            check_fields(body, FIELDS, self.state, OPENAI)
            refuse_chat(body)
            service = self.state.service
            service.models.find(text_field(body, "model") or "")
            inputs, is_list = parse_inputs(body.get("input"), check_count=service.check_count)
            given = await decode_tokens(self.state, inputs, vocabulary=None)
            result = await self._embed(parse_call(body, given), owner)
            return await _line(body, result, slice(None))
        except NotReadyError:
            raise
        except NestvecError as error:
            if isinstance(error, InputError | InternalError) and not is_list:
                error.input_index = None
            status = status_of(error)
            return LineResult(
                status, orjson.dumps(OPENAI.envelope(error, status, "", OPENAI.names))
            )

    async def _embed(self, call: EmbedCall, owner: str) -> EmbedResult:
        """Run as bulk; a full queue is waited for."""
        keys, limits = self.state.keys, self.state.keys.limits_of(owner)
        keys.check_month(owner, limits)
        bulk = dataclasses.replace(call, key_id=owner, priority=Priority.BULK)
        result = await patiently(
            lambda: self.state.service.embed(bulk), lambda: self.state.phase in RUNNING
        )
        # Of the month only: a batch has a day, and takes what the queue gives it.
        of_month = dataclasses.replace(limits, tokens_per_min=None)
        keys.charge(owner, of_month, sum(result.input_tokens))
        return result


async def patiently(
    work: Callable[[], Awaitable[EmbedResult]], is_running: Callable[[], bool]
) -> EmbedResult:
    """Try until there is room, and an engine: a batch has a day, its callers are not waiting.

    Args:
        work: Tried.
        is_running: Whether there is hope; else the server is shutting down.
    """
    while True:
        try:
            return await work()
        except (QueueFullError, NotReadyError) as error:
            if isinstance(error, NotReadyError) and not is_running():
                raise
            wait_s = min(error.retry_after_s, MOST_WAIT_S)
            await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))  # noqa: S311 - spreads retries


async def _line(body: Mapping[str, Any], result: EmbedResult, inputs: slice) -> LineResult:
    """An answer with the vectors of some inputs of a call."""
    encoding = parse_encoding(body)
    if encoding.form.startswith("bytes"):
        raise InputError(
            "'encoding_format' must be 'float' or 'base64' in a batch", param="encoding_format"
        )
    rows = await vectors_json(result, encoding, inputs)
    model = text_field(body, "model") or result.model
    tokens = sum(result.input_tokens[inputs])
    told = Told(result.chunks, _of_inputs(result.long_inputs, inputs))
    return LineResult(200, embeddings_json(rows, model, tokens, told), tokens)


def _of_inputs(long: Sequence[LongInput], inputs: slice) -> list[LongInput]:
    """What became of a line's own inputs, numbered as in the line."""
    start, stop = inputs.start or 0, inputs.stop
    return [
        dataclasses.replace(one, index=one.index - start)
        for one in long
        if start <= one.index and (stop is None or one.index < stop)
    ]


def _alike(bodies: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Places of bodies that may go as one call; others stand alone."""
    groups: dict[str, list[list[int]]] = {}
    alone: list[list[int]] = []
    chars: dict[str, int] = {}
    for place, body in enumerate(bodies):
        text = body.get("input")
        if not isinstance(text, str) or body.get("late_chunking"):
            alone.append([place])
            continue
        rest = {name: value for name, value in body.items() if name not in PER_LINE}
        key = json.dumps(rest, sort_keys=True)
        chars[key] = chars.get(key, 0) + len(text)
        if key not in groups or chars[key] > MOST_CALL_CHARS:
            groups.setdefault(key, []).append([])
            chars[key] = len(text)
        groups[key][-1].append(place)
    return [*alone, *(places for parts in groups.values() for places in parts)]
