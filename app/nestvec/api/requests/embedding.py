"""Runs a request's call in the engine: its key's limits, its deadline, its disconnect, what it used."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self, TypeVar, cast

from fastapi import Request
from starlette.requests import ClientDisconnect

from nestvec.api.http.answer_memory import ANSWER_BYTES, FREE_BYTES
from nestvec.api.http.auth import grant_of
from nestvec.api.http.stage_times import StageTimes, stage_times
from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.fields import Body
from nestvec.api.requests.headers import (
    SCRIPT_HEADER,
    UNUSUAL_IDS_HEADER,
    add_answer_header,
    deadline_s,
    priority,
)
from nestvec.api.state import ApiState
from nestvec.engine.models.model_registry import ModelSlot
from nestvec.engine.outputs.adapters import ADAPTERS
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.results import EmbedResult
from nestvec.engine.text.preparation.scripts import foreign_scripts
from nestvec.engine.types import EmbedCall, Priority
from nestvec.errors import InputError, InternalError
from nestvec.keys.keyring import Keyring
from nestvec.keys.rates import TokenAdmission
from nestvec.keys.records import KeyLimits

Answer = TypeVar("Answer")
# A text, token ids or a picture.
Input = TypeVar("Input")

# About, in English.
CHARS_PER_TOKEN: Final = 4
# The patches of a picture, of the commonest size.
PICTURE_TOKENS: Final = 197
# The fields of all dialects for it, and their words: others are callers' own.
FORM_FIELDS: Final = ("encoding_format", "embedding_type", "embedding_types")
FORMS: Final = frozenset(
    {
        *("float", "base64", "bytes", "bytes_only", "int8", "uint8", "binary", "ubinary"),
        *("base64_int8", "base64_binary"),
    }
)
# What a value of a vector takes, raw and as JSON, whose parts are joined to a whole.
VALUE_BYTES: Final = 24
# What a character of a text whose tokens are described takes, and a token id that is decoded.
DESCRIBED_CHAR_BYTES: Final = 64
DECODED_ID_BYTES: Final = 64
# Answers of so few vectors are not looked at: most are such.
FEW_ROWS: Final = 16
# Of a model that is not loaded yet.
MANY_COLUMNS: Final = 1024


class CallTokens:
    """What one call takes from its key's tokens: all of it once they are counted, and nothing if it then fails.

    Args:
        keys: Knows what is left.
        key_id: Id of the key; "" where none is needed.
        limits: Its limits.

    Attributes:
        are_limited: Whether the key has a rate or a quota of tokens.
    """

    __slots__ = ("_admissions", "_key_id", "_limits", "_rates", "are_limited")

    def __init__(self, keys: Keyring, key_id: str, limits: KeyLimits) -> None:
        self._rates, self._key_id, self._limits = keys.rates, key_id, limits
        self.are_limited = limits.tokens_per_min is not None or limits.monthly_tokens is not None
        # Several where a call embeds something else first.
        self._admissions: list[TokenAdmission] = []

    def checked(self) -> Self:
        """Refuse the call before anything is done for it, where nothing is left; returns itself.

        Raises:
            RateLimitError: Nothing is left.
            NotReadyError: What the key has used is not known.
        """
        if self.are_limited:
            self._rates.check(self._key_id, self._limits)
        return self

    async def admit(self, tokens: int) -> None:
        """Take the call's tokens.

        Raises:
            RateLimitError: Nothing is left.
            NotReadyError: What the key has used is not known.
        """
        self._admissions.append(await self._rates.admit(self._key_id, self._limits, tokens))

    def settle(self, tokens: int) -> None:
        """Count what has run."""
        if not self._settle_admitted():
            self._rates.charge(self._key_id, self._limits, tokens)

    def give_back(self) -> None:
        """Give back what was taken: nothing has run, or nothing came of it."""
        for admission in self._admissions:
            self._rates.give_back(admission)

    def charge_for_leaving(self, call: EmbedCall) -> None:
        """Count what may have run for a caller that has left: an estimate, where it was not counted."""
        if not self._settle_admitted():
            tokens = estimated_tokens(call)
            self._rates.charge(self._key_id, self._limits, tokens)

    def _settle_admitted(self) -> bool:
        """Count what was taken; returns whether anything was."""
        for admission in self._admissions:
            self._rates.settle(admission)
        return bool(self._admissions)


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
    full_call, tokens_of_key = call_of_request(api_request, call)
    stages = await _begin_stages(api_request, full_call)
    try:
        result = await _traced(api_request, full_call, stages)
    except ClientDisconnect:
        # How much ran is not known, so it is charged: leaving early is no way around a quota.
        tokens_of_key.charge_for_leaving(call)
        raise
    except BaseException as error:
        tokens_of_key.give_back()
        if isinstance(error, InputError | InternalError):
            _name_field(error, source, is_list=is_list)
        raise
    stages.answered(result.model, result.timings)
    # Before anything that may be refused: what has run is counted.
    tokens = sum(result.input_tokens)
    tokens_of_key.settle(tokens)
    count_tokens(api_request, tokens)
    _tell_scripts(api_request, call)
    arrays = [value for value in call.inputs if isinstance(value, list)]
    if arrays and (
        unusual := await state.service.token_calls.count_unusual_ids(arrays, call.model)
    ):
        add_answer_header(request, UNUSUAL_IDS_HEADER, str(unusual))
    set_log_fields(
        request,
        inputs=len(call.inputs),
        tokens=tokens,
    )
    return result


async def _traced(api_request: ApiRequest, call: EmbedCall, stages: StageTimes) -> EmbedResult:
    """Run a call, and record it where its request's spans are.

    Raises:
        ClientDisconnect: The client went away.
        NestvecError: The engine's reason why there are no vectors.
    """
    request, state = api_request.request, api_request.state
    if stages.trace is None:
        return await embed_until_disconnect(request, state, call)
    with stages.trace.call(call, stages.model, forms_asked_for(api_request.body)) as recorded:
        result = await embed_until_disconnect(request, state, call)
        recorded.answered(result)
        return result


def forms_asked_for(body: Body) -> list[str]:
    """Return the forms of vectors that a body asks for, whichever its dialect; words that are none are left out."""
    forms: list[str] = []
    for name in FORM_FIELDS:
        value = body.get(name)
        words = value if isinstance(value, list) else [value]
        forms += [word for word in words[: len(FORMS)] if isinstance(word, str) and word in FORMS]
    return forms


def call_of_request(api_request: ApiRequest, call: EmbedCall) -> tuple[EmbedCall, CallTokens]:
    """Return a call as it runs for a request, and what it takes from the request's key.

    Raises:
        RateLimitError: The key has no tokens left.
        NotReadyError: What the key has used is not known.
    """
    request, state = api_request.request, api_request.state
    limits = grant_of(request).limits
    tokens_of_key = CallTokens(state.keys, api_request.key_id, limits).checked()
    latest_s = deadline_s(request, state)
    full_call = dataclasses.replace(
        call,
        truncate=call.truncate or api_request.dialect.default_truncation,
        key_id=api_request.key_id,
        priority=Priority.BULK if limits.is_bulk_only else call.priority or priority(request),
        deadline_s=latest_s if call.deadline_s is None else min(latest_s, call.deadline_s),
        uses_cache="no-store" not in request.headers.get("cache-control", "").lower(),
        admit=tokens_of_key.admit if tokens_of_key.are_limited else None,
    )
    return full_call, tokens_of_key


def _tell_scripts(api_request: ApiRequest, call: EmbedCall) -> None:
    """Give the answer a header where texts are in scripts that the model's card does not know."""
    texts = [value for value in call.inputs if isinstance(value, str) and not value.isascii()]
    if not texts:
        return
    spec = api_request.state.service.models.find(call.model, call.kind).spec
    if spec is not None and (scripts := foreign_scripts(texts, spec.languages)):
        add_answer_header(api_request.request, SCRIPT_HEADER, ",".join(scripts))


def _name_field(error: InputError | InternalError, source: str, *, is_list: bool) -> None:
    """Let an error name the field that the inputs came from, and no index where there is only one."""
    if not is_list:
        error.input_index = None
    if isinstance(error, InputError) and error.param == "input":
        error.param = source


async def _begin_stages(api_request: ApiRequest, call: EmbedCall) -> StageTimes:
    """Note the model that a call means, wait until there is memory for its vectors; returns the request's stages."""
    slot = api_request.state.service.models.find(call.model, call.kind)
    stages = stage_times(api_request.request.scope)
    stages.model = slot.name
    await _reserve_vectors(api_request, call, slot)
    return stages


async def _reserve_vectors(api_request: ApiRequest, call: EmbedCall, slot: ModelSlot) -> None:
    """Wait until there is memory for the vectors that a call asks of a model."""
    rows = len(call.inputs)
    if ADAPTERS[call.kind].has_token_rows:
        most = api_request.state.service.limits.max_token_vectors
        rows = min(most, 2 * rows + estimated_tokens(call))
    if rows * (len(slot.parts) or 1) <= FEW_ROWS:
        return
    native = MANY_COLUMNS if slot.model is None else slot.model.core.backend_info.hidden_size
    if slot.model is not None and (vector_map := slot.model.maps.get(call.map_id or "")):
        native = max(native, vector_map.width)
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

    async def take() -> None:
        await memory.take(count)
        # In the same step, so that it is given back however the request ends.
        request.scope[ANSWER_BYTES] = request.scope.get(ANSWER_BYTES, 0) + count

    await until_disconnect(request, take())


def estimated_tokens(call: EmbedCall) -> int:
    """Return about how many tokens a call has, where nobody has counted them."""
    pictures = chars = 0
    for value in call.inputs:
        if isinstance(value, MixedInput):
            pictures, chars = pictures + len(value.pictures), chars + value.chars
        elif isinstance(value, Picture):
            pictures += 1
        else:
            chars += len(value)
    return PICTURE_TOKENS * pictures + (chars + sum(map(len, call.context))) // CHARS_PER_TOKEN


def check_tokens(api_request: ApiRequest) -> None:
    """Refuse work on tokens whose key has used up its tokens, of the minute or the month.

    Raises:
        RateLimitError: They are used up.
        NotReadyError: What the key has used is not known.
    """
    limits = grant_of(api_request.request).limits
    api_request.state.keys.rates.check(api_request.key_id, limits)


@asynccontextmanager
async def charged_tokens(api_request: ApiRequest, tokens: int) -> AsyncIterator[None]:
    """Take tokens from a request's key for a block that works on them; where it fails they are given back.

    Raises:
        RateLimitError: Others have used up the key's tokens meanwhile.
        NotReadyError: What the key has used is not known.
    """
    rates = api_request.state.keys.rates
    admission = await rates.admit(api_request.key_id, grant_of(api_request.request).limits, tokens)
    try:
        yield
    except ClientDisconnect:
        rates.settle(admission)
        raise
    except BaseException:
        rates.give_back(admission)
        raise
    rates.settle(admission)
    count_tokens(api_request, tokens)


def count_tokens(api_request: ApiRequest, tokens: int) -> None:
    """Count tokens of a request's key in the metrics."""
    if api_request.key_id:
        keys = api_request.state.metrics.keys
        keys.tokens.labels(keys.label_of(api_request.key_id)).inc(tokens)


async def decode_tokens(
    state: ApiState, inputs: Sequence[Input], *, vocabulary: str | None
) -> Sequence[Input | str | Sequence[int]]:
    """Turn token arrays into what the engine takes; texts and pictures stay as they are.

    Args:
        state: The application's shared state, which has the decoder.
        inputs: Texts, token arrays, pictures, or several of these.
        vocabulary: What the caller says the ids are in: "model" or "cl100k"; None: what the settings say.

    Raises:
        InputError: Token arrays are refused here, the cl100k table cannot be had, or an id is not in it.
    """
    indices = [index for index, item in enumerate(inputs) if isinstance(item, list)]
    if not indices:
        return inputs
    arrays = [cast("Sequence[int]", inputs[index]) for index in indices]
    decoded = await state.tokens.resolve(arrays, vocabulary=vocabulary)
    items: list[Input | str | Sequence[int]] = list(inputs)
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
