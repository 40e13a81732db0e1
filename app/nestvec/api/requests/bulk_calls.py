"""Calls that nobody waits for, of batches and reports: in the bulk class, tried again until the queue has room."""

import asyncio
import dataclasses
import random
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Final

from nestvec.api.requests.embedding import CallTokens
from nestvec.api.state import ApiState, Phase
from nestvec.engine.models.model_registry import ModelSlot, visible_models
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall, OutputKind, Priority
from nestvec.errors import ModelUnavailableError, NestvecError, NotReadyError, QueueFullError
from nestvec.observability.tracing.request_trace import RequestTrace

MAX_WAIT_S: Final = 5.0
RUNNING: Final = (Phase.READY, Phase.RECOVERING)
# Records the spans of the chunk whose lines are being answered; None where none are recorded.
chunk_trace: Final[ContextVar[RequestTrace | None]] = ContextVar("chunk_trace", default=None)


def find_slot(state: ApiState, model: str | None) -> ModelSlot | None:
    """Find a model as any key sees it; None where no model has the name."""
    token = visible_models.set(None)
    try:
        return state.service.models.find(model or "", OutputKind.DENSE)
    except NestvecError:
        return None
    finally:
        visible_models.reset(token)


async def run_bulk_call(state: ApiState, call: EmbedCall, owner: str) -> EmbedResult:
    """Run a call of a batch or a report in the bulk class, and wait while the queue is full.

    Args:
        state: The application's shared state.
        call: What is to be run.
        owner: Id of the key that it is for, and is counted to.

    Raises:
        NestvecError: The engine's reason, or the key's month is used up, or it was revoked.
    """
    keys = state.keys
    # Only the month is charged: a batch has a day, and takes what the queue gives it.
    limits = dataclasses.replace(keys.limits_of(owner), tokens_per_min=None)
    bulk = dataclasses.replace(call, key_id=owner, priority=Priority.BULK)

    async def embed_once() -> EmbedResult:
        tokens = CallTokens(keys, owner, limits).checked()
        admit = tokens.admit if tokens.are_limited else None
        try:
            result = await _run_recorded(state, dataclasses.replace(bulk, admit=admit))
        except BaseException:
            tokens.give_back()
            raise
        tokens.settle(sum(result.input_tokens))
        return result

    return await retry_until_accepted(embed_once, lambda: state.phase in RUNNING)


async def _run_recorded(state: ApiState, call: EmbedCall) -> EmbedResult:
    """Run a call, and record it where its chunk's spans are.

    Raises:
        NestvecError: The engine's reason why there are no vectors.
    """
    trace = chunk_trace.get()
    if trace is None:
        return await state.service.embed(call)
    slot = find_slot(state, call.model)
    with trace.call(call, "" if slot is None else slot.name) as recorded:
        result = await state.service.embed(call)
        recorded.answered(result)
        return result


async def retry_until_accepted(
    work: Callable[[], Awaitable[EmbedResult]], is_running: Callable[[], bool]
) -> EmbedResult:
    """Try until the queue has room and the engine is up: a batch has a day, so nobody waits for it.

    A model that cannot be loaded is the caller's matter: others' lines must not wait for it.

    Args:
        work: What is tried.
        is_running: Whether the engine is up or will be again; else the server is shutting down.

    Raises:
        ModelUnavailableError: The model cannot be loaded now.
        NotReadyError: The server is shutting down.
        NestvecError: Any other failure of the work.
    """
    while True:
        try:
            return await work()
        except ModelUnavailableError:
            raise
        except (QueueFullError, NotReadyError) as error:
            if isinstance(error, NotReadyError) and not is_running():
                raise
            wait_s = min(error.retry_after_s, MAX_WAIT_S)
            await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))  # noqa: S311 - spreads retries
