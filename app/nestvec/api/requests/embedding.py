"""Runs a request's call in the engine: its key's limits, its deadline, its disconnect, what it used."""

import asyncio
import dataclasses
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar, cast

from fastapi import Request
from starlette.requests import ClientDisconnect

from nestvec.api.http.answer_memory import ANSWER_BYTES, FREE_BYTES
from nestvec.api.http.auth import grant_of
from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.fields import Inputs
from nestvec.api.requests.headers import (
    UNUSUAL_IDS_HEADER,
    add_answer_header,
    deadline_s,
    priority,
)
from nestvec.api.state import ApiState
from nestvec.engine.types import EmbedCall, EmbedResult, OutputKind, Priority
from nestvec.errors import InputError, InternalError

Answer = TypeVar("Answer")

# About, in English.
CHARS_PER_TOKEN: Final = 4
# What a value of a vector takes, raw and as JSON, whose parts are joined to a whole.
VALUE_BYTES: Final = 24
# What a character of a text whose tokens are described takes, and a token id that is decoded.
DESCRIBED_CHAR_BYTES: Final = 64
DECODED_ID_BYTES: Final = 64
# Answers of so few vectors are not looked at: most are such.
FEW_ROWS: Final = 16
# Of a model that is not loaded yet.
MANY_COLUMNS: Final = 1024


async def embed(
    api_request: ApiRequest, call: EmbedCall, *, is_list: bool = True, source: str = "input"
) -> EmbedResult:
    """Run a call for a request, with its key, scheduling class and deadline and the defaults of its dialect.

    Args:
        api_request: Whom the vectors are for.
        call: What is to be run; token arrays must be in the model's own vocabulary.
        is_list: Whether the inputs came as a list, so that an error names one of them.
        source: The field that they came from, for errors.

    Raises:
        ClientDisconnect: The client went away.
        RateLimitError: The key has no tokens left.
        NestvecError: The engine's reason why there are no vectors.
    """
    request, state = api_request.request, api_request.state
    limits = grant_of(request).limits
    state.keys.check_tokens(api_request.key_id, limits)
    latest_s = deadline_s(request, state)
    full_call = dataclasses.replace(
        call,
        truncate=call.truncate or api_request.dialect.default_truncation,
        key_id=api_request.key_id,
        priority=Priority.BULK if limits.is_bulk_only else call.priority or priority(request),
        deadline_s=latest_s if call.deadline_s is None else min(latest_s, call.deadline_s),
        uses_cache="no-store" not in request.headers.get("cache-control", "").lower(),
    )
    await _reserve_vectors(api_request, full_call)
    try:
        result = await embed_until_disconnect(request, state, full_call)
    except ClientDisconnect:
        # How much ran is not known, so it is estimated: leaving early is no way around a quota.
        state.keys.charge(api_request.key_id, limits, sum(map(len, call.inputs)) // CHARS_PER_TOKEN)
        raise
    except (InputError, InternalError) as error:
        if not is_list:
            error.input_index = None
        if isinstance(error, InputError) and error.param == "input":
            error.param = source
        raise
    arrays = [value for value in call.inputs if isinstance(value, list)]
    if arrays and (unusual := await state.service.count_unusual_ids(arrays, call.model)):
        add_answer_header(request, UNUSUAL_IDS_HEADER, str(unusual))
    tokens = sum(result.input_tokens)
    charge_tokens(api_request, tokens)
    set_log_fields(
        request,
        dialect=api_request.dialect.name,
        model=result.model,
        key_id=api_request.key_id,
        inputs=len(call.inputs),
        tokens=tokens,
        queue_wait_ms=round(result.timings.queue_wait_s * 1000, 1),
    )
    return result


async def _reserve_vectors(api_request: ApiRequest, call: EmbedCall) -> None:
    """Wait until there is memory for the vectors that a call asks for."""
    service = api_request.state.service
    rows = len(call.inputs)
    if call.kind is OutputKind.TOKENS:
        chars = sum(map(len, call.inputs))
        rows = min(service.limits.max_token_vectors, 2 * rows + chars // CHARS_PER_TOKEN)
    if rows <= FEW_ROWS:
        return
    model = service.models.find(call.model, call.kind).model
    native = MANY_COLUMNS if model is None else model.core.backend_info.hidden_size
    await reserve_answer(api_request, rows * (call.dimensions or native) * VALUE_BYTES)


async def reserve_answer(api_request: ApiRequest, count: int) -> None:
    """Wait until there is memory for an answer of so many bytes, its making included; small ones need not.

    Raises:
        ClientDisconnect: The client went away.
        QueueFullError: There was no room in time.
    """
    if count <= FREE_BYTES:
        return
    request, memory = api_request.request, api_request.state.answer_memory
    await until_disconnect(request, memory.take(count))
    request.scope[ANSWER_BYTES] = request.scope.get(ANSWER_BYTES, 0) + count


def check_tokens(api_request: ApiRequest) -> None:
    """Refuse work on tokens whose key has used up its tokens, of the minute or the month.

    Raises:
        RateLimitError: They are used up.
    """
    limits = grant_of(api_request.request).limits
    api_request.state.keys.check_tokens(api_request.key_id, limits)


def charge_tokens(api_request: ApiRequest, tokens: int) -> None:
    """Count the tokens that were worked on for a request to its key."""
    state, key_id = api_request.state, api_request.key_id
    state.keys.charge(key_id, grant_of(api_request.request).limits, tokens)
    if key_id:
        state.metrics.keys.tokens.labels(key_id).inc(tokens)


async def decode_tokens(state: ApiState, inputs: Inputs, *, vocabulary: str | None) -> Inputs:
    """Turn token arrays into what the engine takes; texts stay as they are.

    Args:
        state: The application's shared state, which has the decoder.
        inputs: Texts, token arrays, or both.
        vocabulary: What the caller says the ids are in: "model" or "cl100k"; None: what the settings say.

    Raises:
        InputError: Token arrays are refused here, the cl100k table cannot be had, or an id is not in it.
    """
    indices = [index for index, item in enumerate(inputs) if not isinstance(item, str)]
    if not indices:
        return inputs
    arrays = [cast("Sequence[int]", inputs[index]) for index in indices]
    decoded = await state.tokens.resolve(arrays, vocabulary=vocabulary)
    items: list[str | Sequence[int]] = list(inputs)
    for index, item in zip(indices, decoded, strict=True):
        items[index] = item
    return items


async def embed_until_disconnect(request: Request, state: ApiState, call: EmbedCall) -> EmbedResult:
    """Run a call; if the client goes away first, its work leaves the queue.

    Raises:
        ClientDisconnect: The client went away.
        NestvecError: The engine's reason why there are no vectors.
    """
    return await until_disconnect(request, state.service.embed(call))


async def until_disconnect(request: Request, answering: Coroutine[Any, Any, Answer]) -> Answer:
    """Wait for an answer; if the client goes away first, what makes it is cancelled.

    Raises:
        ClientDisconnect: The client went away.
        Exception: What `answering` raises.
    """
    work = asyncio.ensure_future(answering)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
            raise ClientDisconnect
        return work.result()
    finally:
        work.cancel()
        gone.cancel()


def set_log_fields(request: Request, **fields: str | int | float) -> None:
    """Set what this request's line in the access log says beside route and status; never a caller's text."""
    request.state.log_fields = fields


async def _disconnected(request: Request) -> None:
    """Return once the client has closed the connection; the body has been read by then."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
