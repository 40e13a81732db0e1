"""Lines of a batch, answered as `POST /v1/embeddings` would answer them."""

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, cast

import orjson

from nestvec.api.dialect_table import OPENAI
from nestvec.api.dialects.openai_body import (
    FIELDS,
    Encoding,
    parse_call,
    parse_encoding,
    refuse_chat,
)
from nestvec.api.dialects.openai_response import ResponseExtras, embeddings_parts, vectors_json
from nestvec.api.error_handlers import status_of
from nestvec.api.http.auth import restrict_models
from nestvec.api.requests.embedding import decode_tokens
from nestvec.api.requests.fields import Body, parse_inputs, text_field
from nestvec.api.requests.foreign_fields import check_fields
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

# Most lines hold one text; those of a group that agree in all other fields are run as one call.
PER_LINE: Final = frozenset({"input", "user"})
MAX_CALL_CHARS: Final = 200_000
MAX_WAIT_S: Final = 5.0
RUNNING: Final = (Phase.READY, Phase.RECOVERING)


@dataclasses.dataclass(frozen=True, slots=True)
class BatchLines:
    """Answers the lines of batches with the engine.

    Attributes:
        state: The application's shared state.
    """

    state: ApiState

    async def answer(
        self, bodies: Sequence[Mapping[str, Any]], *, owner: str
    ) -> Sequence[LineResult]:
        """Answer each body, in order; a failing line fails alone.

        Args:
            bodies: One a line, each as parsed from JSON.
            owner: Id of the key that the batch belongs to.

        Raises:
            NotReadyError: The server is shutting down.
        """
        restrict_models(self.state.keys.limits_of(owner))
        results: list[LineResult | None] = [None] * len(bodies)
        groups = await asyncio.to_thread(_group_alike, bodies)
        await asyncio.gather(*(self._fill(results, bodies, indices, owner) for indices in groups))
        return cast("list[LineResult]", results)

    async def _fill(
        self,
        results: list[LineResult | None],
        bodies: Sequence[Body],
        indices: Sequence[int],
        owner: str,
    ) -> None:
        """Answer bodies that ask for the same, as one call if that can be."""
        if len(indices) > 1:
            try:
                answers = await self._answer_group([bodies[index] for index in indices], owner)
            except (InputError, RateLimitError, MemoryShortError):
                pass  # one line is at fault, or the key has nothing left: each is tried alone
            else:
                for index, answer in zip(indices, answers, strict=True):
                    results[index] = answer
                return
        answers = await asyncio.gather(
            *(self._answer_alone(bodies[index], owner) for index in indices)
        )
        for index, answer in zip(indices, answers, strict=True):
            results[index] = answer

    async def _answer_group(self, bodies: Sequence[Body], owner: str) -> list[LineResult]:
        """Answer bodies that differ in nothing but their text and `user`.

        Raises:
            NestvecError: Any of them cannot be answered.
        """
        check_fields(bodies[0], FIELDS, self.state, OPENAI)
        texts = [body["input"] for body in bodies]
        encoding = parse_encoding(bodies[0])
        result = await self._embed(parse_call(bodies[0], texts, encoding), owner)
        return [
            await _line_result(body, encoding, result, slice(row, row + 1))
            for row, body in enumerate(bodies)
        ]

    async def _answer_alone(self, body: Body, owner: str) -> LineResult:
        """Answer one body; whatever is wrong with it becomes its result.

        Raises:
            NotReadyError: The server is shutting down.
        """
        is_list = True
        try:
            check_fields(body, FIELDS, self.state, OPENAI)
            refuse_chat(body)
            service = self.state.service
            service.models.find(text_field(body, "model") or "")
            inputs, is_list = parse_inputs(body.get("input"), check_count=service.check_count)
            decoded = await decode_tokens(self.state, inputs, vocabulary=None)
            encoding = parse_encoding(body)
            result = await self._embed(parse_call(body, decoded, encoding), owner)
            return await _line_result(body, encoding, result, slice(None))
        except NotReadyError:
            raise
        except NestvecError as error:
            if isinstance(error, InputError | InternalError) and not is_list:
                error.input_index = None
            status = status_of(error)
            content = OPENAI.envelope(error, status, "", OPENAI.field_names)
            return LineResult(status, orjson.dumps(content))

    async def _embed(self, call: EmbedCall, owner: str) -> EmbedResult:
        """Run a call in the bulk class, and wait while the queue is full.

        Raises:
            NestvecError: The engine's reason, or the key's month is used up.
        """
        keys, limits = self.state.keys, self.state.keys.limits_of(owner)
        keys.check_month(owner, limits)
        bulk = dataclasses.replace(call, key_id=owner, priority=Priority.BULK)
        result = await retry_until_accepted(
            lambda: self.state.service.embed(bulk), lambda: self.state.phase in RUNNING
        )
        # Only the month is charged: a batch has a day, and takes what the queue gives it.
        monthly_limits = dataclasses.replace(limits, tokens_per_min=None)
        keys.charge(owner, monthly_limits, sum(result.input_tokens))
        return result


async def retry_until_accepted(
    work: Callable[[], Awaitable[EmbedResult]], is_running: Callable[[], bool]
) -> EmbedResult:
    """Try until the queue has room and the engine is up: a batch has a day, so nobody waits for it.

    Args:
        work: What is tried.
        is_running: Whether the engine is up or will be again; else the server is shutting down.

    Raises:
        NotReadyError: The server is shutting down.
        NestvecError: Any other failure of the work.
    """
    while True:
        try:
            return await work()
        except (QueueFullError, NotReadyError) as error:
            if isinstance(error, NotReadyError) and not is_running():
                raise
            wait_s = min(error.retry_after_s, MAX_WAIT_S)
            await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))  # noqa: S311 - spreads retries


async def _line_result(
    body: Body, encoding: Encoding, result: EmbedResult, inputs: slice
) -> LineResult:
    """Answer a line with the vectors of some inputs of a call.

    Raises:
        InputError: The encoding is raw bytes, which a line of JSON cannot hold.
    """
    if encoding.form.startswith("bytes"):
        raise InputError(
            "'encoding_format' must be 'float' or 'base64' in a batch", param="encoding_format"
        )
    rows = await vectors_json(result, encoding, inputs)
    model = text_field(body, "model") or result.model
    tokens = sum(result.input_tokens[inputs])
    extras = ResponseExtras(result.chunks, _long_inputs_of(result.long_inputs, inputs))
    return LineResult(200, b"".join(embeddings_parts(rows, model, tokens, extras)), tokens)


def _long_inputs_of(long_inputs: Sequence[LongInput], inputs: slice) -> list[LongInput]:
    """What became of a line's own long inputs, numbered as in the line."""
    start, stop = inputs.start or 0, inputs.stop
    return [
        dataclasses.replace(long_input, index=long_input.index - start)
        for long_input in long_inputs
        if start <= long_input.index and (stop is None or long_input.index < stop)
    ]


def _group_alike(bodies: Sequence[Body]) -> list[list[int]]:
    """Group the indices of bodies that can be run as one call; other bodies stand alone."""
    groups: dict[bytes, list[list[int]]] = {}
    alone: list[list[int]] = []
    chars: dict[bytes, int] = {}
    for index, body in enumerate(bodies):
        text = body.get("input")
        if not isinstance(text, str) or body.get("late_chunking"):
            alone.append([index])
            continue
        shared = {name: value for name, value in body.items() if name not in PER_LINE}
        try:
            key = orjson.dumps(shared, option=orjson.OPT_SORT_KEYS)
        except orjson.JSONEncodeError:  # nested more deeply than orjson writes
            alone.append([index])
            continue
        chars[key] = chars.get(key, 0) + len(text)
        if key not in groups or chars[key] > MAX_CALL_CHARS:
            groups.setdefault(key, []).append([])
            chars[key] = len(text)
        groups[key][-1].append(index)
    return [*alone, *(indices for groups_of_key in groups.values() for indices in groups_of_key)]
