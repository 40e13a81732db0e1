"""What every dialect does around the engine's one call: auth, body, deadline, disconnect."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.api.body import read_json_object
from app.api.fields import Inputs
from app.api.state import ApiState
from app.engine.types import EmbedCall, EmbedResult, Priority
from app.errors import InputError

# A client that waits N seconds should have our answer a little before it gives up and sends the work again.
CLIENT_MARGIN_S: Final = 1.0
VOCABULARY_HEADER: Final = "x-embed-token-vocab"


async def open_body(request: Request, state: ApiState) -> tuple[str, dict[str, Any]]:
    """Check the key, refuse while loading, then read the body.

    Returns:
        The key's id and the parsed body.
    """
    key_id = state.auth.check(request.headers)
    _ = state.service  # nothing is read for a model that is not there yet
    body = await read_json_object(request, max_bytes=state.options.max_body_bytes)
    return key_id, body


def check_fields(body: Mapping[str, Any], known: frozenset[str], state: ApiState) -> None:
    """Refuse unknown fields where the operator asked for that.

    Raises:
        InputError: Names the first one.
    """
    if state.options.reject_unknown_fields and (unknown := sorted(set(body) - known)):
        name = unknown[0][:100]
        raise InputError(f"unknown field '{name}'", param=name, code="unknown_field")


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
    if isinstance(inputs[0], str):
        return inputs
    ids = cast("Sequence[Sequence[int]]", inputs)
    return await state.tokens.resolve(ids, vocabulary=vocabulary)


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
