"""What every dialect does around the engine's one call: auth, body, deadline, disconnect."""

import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from fastapi import Request
from starlette.requests import ClientDisconnect

from nestvec.api.dialect_table import Dialect
from nestvec.api.http.auth import let_in, pass_of
from nestvec.api.http.body import read_json_object
from nestvec.api.requests.fields import Inputs, text_field
from nestvec.api.state import ApiState, api_state
from nestvec.engine.models.model_registry import Slot
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import EmbedCall, EmbedResult, OutputKind, Priority
from nestvec.errors import DeadlineError, InputError, InternalError, RequestTooLargeError

# A client that waits N seconds should have our answer a little before it gives up and sends the work again.
CLIENT_MARGIN_S: Final = 1.0
CHARS_PER_TOKEN: Final = 4  # about, in English
VOCABULARY_HEADER: Final = "x-embed-token-vocab"
# Fields of any dialect that change vectors, with the values that change nothing (decisions 16).
VECTOR_FIELDS: Final[Mapping[str, tuple[object, ...]]] = {
    "dimensions": (),
    "output_dimension": (),
    "output_dtype": ("float", "float32"),
    "embedding_type": ("float",),
    "embedding_types": (["float"],),
    "embed_dtype": ("float32",),
    "normalize": (True,),
    "normalized": (True,),
    "use_activation": (True,),
    "add_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "late_chunking": (False,),
    "return_multivector": (False,),
    "prompt": (),
    "prompt_name": (),
    "instruction": (),
    "examples": ([],),
    "input_type": (),
    "task": (),
    "layers": (),
    "map": (),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose key was checked and whose body was read.

    Attributes:
        key_id: Whose it is, "" where keys are not asked for.
    """

    request: Request
    state: ApiState
    dialect: Dialect
    key_id: str
    body: dict[str, Any]

    def check_fields(self, known: frozenset[str]) -> None:
        """Refuse fields of other dialects that would change the vectors, and unknown ones where the operator asked so.

        Raises:
            InputError: Names the first one.
        """
        check_fields(self.body, known, self.state, self.dialect)

    def check_count(self, inputs: int) -> None:
        """Refuse more inputs than the dialect or the server takes in a request.

        Raises:
            RequestTooLargeError: There are more.
        """
        most = self.dialect.max_inputs
        if most is not None and inputs > most:
            raise RequestTooLargeError(
                f"invalid request: total number of 'input' must be at most {most} - received {inputs}",
                param="input",
            )
        self.state.service.check_count(inputs)

    def find_model(self, kind: OutputKind = OutputKind.DENSE) -> Slot:
        """What the body's `model` means, loaded or not; first of all, as an unknown one is the more helpful answer.

        Raises:
            UnknownModelError: Nothing.
            InputError: It is no string.
        """
        return self.state.service.models.find(self.model_name(), kind)

    async def model(self, kind: OutputKind | None = None) -> ServedModel:
        """The same, held until the request has been answered.

        Args:
            kind: What is wanted of it, where the body names none.

        Raises:
            UnknownModelError: Nothing.
            ModelUnavailableError: It cannot be loaded.
            InputError: It is no string.
        """
        return await hold_model(self.request, self.state, self.model_name(), kind)

    def model_name(self) -> str:
        """As the caller wrote it, "" for none."""
        return text_field(self.body, "model") or ""


def enter(request: Request, name: str) -> ApiState:
    """Let a request's errors and metrics be those of a dialect."""
    state = api_state(request)
    request.state.dialect = state.dialect(name)
    return state


async def hold_model(
    request: Request, state: ApiState, name: str, kind: OutputKind | None = None
) -> ServedModel:
    """A model, loaded first where need be, that stays until the request has been answered.

    Raises:
        UnknownModelError: No model has the name.
        ModelUnavailableError: It cannot be loaded.
        DeadlineError: Not within the request's time.
    """
    pool = state.service.pool
    slot = pool.models.find(name, kind)
    try:
        async with asyncio.timeout(deadline_s(request, state) - time.monotonic()):
            return await pool.hold(slot)
    except TimeoutError:
        raise DeadlineError("The deadline passed before the model was loaded.") from None


async def open_as(request: Request, dialect: Dialect) -> Asked:
    """Check the key, refuse while loading, then read the body."""
    state = enter(request, dialect.name)
    key_id, body = await open_body(request, state)
    return Asked(request, state, state.dialect(dialect.name), key_id, body)


async def open_body(request: Request, state: ApiState) -> tuple[str, dict[str, Any]]:
    """Check the key, refuse while loading, then read the body.

    Returns:
        The key's id and the parsed body.
    """
    key_id = let_in(request, state.keys)
    _ = state.service  # nothing is read for a model that is not there yet
    body = await read_json_object(
        request, max_bytes=state.options.max_body_bytes, limits=state.options.json
    )
    return key_id, body


async def embed(
    asked: Asked, call: EmbedCall, *, is_list: bool = True, source: str = "input"
) -> EmbedResult:
    """Run a call for a request: its key, class and deadline, and what its dialect does unasked.

    Args:
        asked: Whose.
        call: What of it; token arrays must be in the model's own vocabulary.
        is_list: Whether the inputs came as a list, so that an error names one of them.
        source: The field that they came from.

    Raises:
        ClientDisconnect: The client went away.
        NestvecError: As the engine says.
    """
    request, state = asked.request, asked.state
    limits = pass_of(request).limits
    state.keys.check_tokens(asked.key_id, limits)
    latest_s = deadline_s(request, state)
    whole = dataclasses.replace(
        call,
        truncate=call.truncate or asked.dialect.truncate,
        key_id=asked.key_id,
        priority=Priority.BULK if limits.is_bulk_only else call.priority or priority(request),
        deadline_s=latest_s if call.deadline_s is None else min(latest_s, call.deadline_s),
        uses_cache="no-store" not in request.headers.get("cache-control", "").lower(),
    )
    try:
        result = await embed_for(request, state, whole)
    except ClientDisconnect:
        # What ran for it is not known; leaving early is no way around a quota.
        state.keys.charge(asked.key_id, limits, sum(map(len, call.inputs)) // CHARS_PER_TOKEN)
        raise
    except (InputError, InternalError) as error:
        if not is_list:
            error.input_index = None
        if isinstance(error, InputError) and error.param == "input":
            error.param = source
        raise
    tokens = sum(result.input_tokens)
    state.keys.charge(asked.key_id, limits, tokens)
    if asked.key_id:
        state.metrics.key_tokens.labels(asked.key_id).inc(tokens)
    note_facts(
        request,
        dialect=asked.dialect.name,
        model=result.model,
        key_id=asked.key_id,
        inputs=len(call.inputs),
        tokens=tokens,
        queue_wait_ms=round(result.timings.queue_wait_s * 1000, 1),
    )
    return result


def result_headers(result: EmbedResult, call: EmbedCall) -> dict[str, str]:
    """What every dialect tells of vectors beside them."""
    headers = {"x-embed-space": result.space}
    if windowed := sum(one.windows > 1 for one in result.long_inputs):
        headers["x-embed-windows"] = str(windowed)
    if truncated := sum(result.is_truncated):
        headers["x-embed-truncated"] = str(truncated)
    if call.prompt_role is not None and result.prompt_used is None:
        headers["x-embed-prompt"] = "none"
    if result.layers:
        headers["x-embed-layers"] = str(result.layers)
    if result.map_name:
        headers["x-embed-map"] = result.map_name
    if result.quantization:
        headers["x-embed-quantization"] = result.quantization
    return headers


def check_fields(
    body: Mapping[str, Any], known: frozenset[str], state: ApiState, dialect: Dialect
) -> None:
    """Refuse fields of other dialects that would change the vectors, and unknown ones where the operator asked so.

    Raises:
        InputError: Names the first one.
    """
    if state.options.reject_unknown_fields and (unknown := sorted(set(body) - known)):
        name = unknown[0][:100]
        raise InputError(f"unknown field '{name}'", param=name, code="unknown_field")
    for name in sorted(VECTOR_FIELDS.keys() & body.keys() - known):
        if body[name] not in (None, *VECTOR_FIELDS[name]):
            raise InputError(
                f"`{name}` is a field of another dialect than this request's ({dialect.title}), "
                "and ignoring it would give other vectors than you ask for",
                param=name,
                code="foreign_field",
            )


def deadline_s(request: Request, state: ApiState) -> float:
    """Monotonic time at which an answer stops being of use.

    Raises:
        InputError: `x-request-timeout-ms` is not a positive number.
    """
    wait_s = state.options.request_timeout_s
    asked = request.headers.get("x-request-timeout-ms")
    if asked is not None:
        asked_ms = _positive(asked)
        if asked_ms is None:
            raise InputError("x-request-timeout-ms must be a positive number of milliseconds")
        wait_s = min(wait_s, asked_ms / 1000)
    hint_s = _positive(request.headers.get("x-stainless-read-timeout", ""))
    if hint_s is not None and hint_s > 2 * CLIENT_MARGIN_S:
        wait_s = min(wait_s, hint_s - CLIENT_MARGIN_S)
    return time.monotonic() + wait_s


def priority(request: Request) -> Priority | None:
    """Scheduling class the caller asks for; None, or an unknown word, leaves it to the call's size."""
    asked = request.headers.get("x-embed-priority", "").lower()
    return Priority(asked) if asked in set(Priority) else None


async def decode_tokens(state: ApiState, inputs: Inputs, *, vocabulary: str | None) -> Inputs:
    """Texts as they are; token arrays by the vocabulary that the caller, else the setting says."""
    places = [place for place, given in enumerate(inputs) if not isinstance(given, str)]
    if not places:
        return inputs
    ids = [cast("Sequence[int]", inputs[place]) for place in places]
    decoded = await state.tokens.resolve(ids, vocabulary=vocabulary)
    found: list[str | Sequence[int]] = list(inputs)
    for place, given in zip(places, decoded, strict=True):
        found[place] = given
    return found


async def embed_for(request: Request, state: ApiState, call: EmbedCall) -> EmbedResult:
    """Run the call; if the client goes away first, its work leaves the queue.

    Raises:
        ClientDisconnect: The client went away.
        NestvecError: As the engine says.
    """
    work = asyncio.ensure_future(state.service.embed(call))
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


def note_facts(request: Request, **facts: str | int | float) -> None:
    """Add to this request's line in the access log; never a text."""
    request.state.log_facts = facts


async def _disconnected(request: Request) -> None:
    """Return once the client has closed the connection; the body has been read by then."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
