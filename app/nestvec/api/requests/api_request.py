"""A request on its way in: its key checked, its body read, its model found and held until the answer is out."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from nestvec.api.dialect_table import Dialect
from nestvec.api.http.auth import authenticate
from nestvec.api.http.body import BODY_RESERVATION, read_json_object
from nestvec.api.http.body_memory import BodyReservation
from nestvec.api.http.stage_times import stage_times
from nestvec.api.requests.fields import text_field
from nestvec.api.requests.foreign_fields import NO_OBJECTS, check_fields, header_value
from nestvec.api.requests.headers import IGNORED_FIELDS_HEADER, add_answer_header, deadline_s
from nestvec.api.state import ApiState, api_state
from nestvec.engine.dtypes import OutputDtype
from nestvec.engine.models.model_registry import ModelSlot
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import OutputKind
from nestvec.errors import DeadlineError, RequestTooLargeError
from nestvec.keys.keyring import Keyring

# Checks a request's key, and returns its id.
Authenticate = Callable[[Request, Keyring], str]


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request whose key was checked and whose body was read.

    Attributes:
        request: Starlette's request, for headers and for disconnects.
        state: The application's shared state.
        dialect: The dialect that the request is in, as the server is configured.
        key_id: Id of the caller's key; "" where the server asks for none.
        body: As parsed from JSON.
    """

    request: Request
    state: ApiState
    dialect: Dialect
    key_id: str
    body: dict[str, Any]

    def check_fields(
        self, known: frozenset[str], inside: Mapping[str, frozenset[str]] = NO_OBJECTS
    ) -> None:
        """Refuse fields of other dialects that would change vectors, and any unknown ones where the operator says so.

        Other unknown fields are ignored, and named in a header of the answer.

        Args:
            known: The fields that the route reads or may safely ignore.
            inside: The same of objects in the body, by their fields' names.

        Raises:
            InputError: A field is refused; the first one is named.
        """
        ignored = check_fields(self.body, known, self.state, self.dialect, inside)
        if ignored:
            add_answer_header(self.request, IGNORED_FIELDS_HEADER, header_value(ignored))

    def check_count(self, inputs: int) -> None:
        """Refuse more inputs than the dialect or the server takes in a request.

        Args:
            inputs: How many there are.

        Raises:
            RequestTooLargeError: There are too many.
            QueueFullError: Other requests leave no memory for so many.
        """
        max_inputs = self.dialect.max_inputs
        if max_inputs is not None and inputs > max_inputs:
            raise RequestTooLargeError(
                f"invalid request: total number of 'input' must be at most {max_inputs} - received {inputs}",
                param="input",
            )
        self.state.service.check_count(inputs)
        reservation: BodyReservation | None = self.request.scope.get(BODY_RESERVATION)
        if reservation is not None:
            reservation.count_inputs(inputs)

    def find_model(self, kind: OutputKind = OutputKind.DENSE) -> ModelSlot:
        """Return the slot that the body's `model` means, loaded or not.

        Routes ask for it before they read other fields: that the model is unknown is the more helpful answer.

        Args:
            kind: The output that is wanted, where the body names no model.

        Raises:
            UnknownModelError: No model has the name.
            InputError: `model` is not a string.
        """
        slot = self.state.service.models.find(self.model_name(), kind)
        stage_times(self.request.scope).model = slot.name
        return slot

    async def acquire_model(self, kind: OutputKind | None = None) -> ServedModel:
        """Return the model that the body's `model` means, loaded, and hold it until the request has been answered.

        Args:
            kind: The output that is wanted, where the body names no model; None: any.

        Raises:
            UnknownModelError: No model has the name.
            ModelUnavailableError: It cannot be loaded.
            DeadlineError: It was not loaded within the request's time.
            InputError: `model` is not a string.
        """
        return await acquire_model(self.request, self.state, self.model_name(), kind)

    def pinned_dtype(self, kind: OutputKind = OutputKind.DENSE) -> OutputDtype | None:
        """Return the dtype that the body's `model` stands for, for requests that name none; None for most names.

        Raises:
            UnknownModelError: No model has the name.
            InputError: `model` is not a string.
        """
        name = self.model_name()
        return self.state.service.models.find(name, kind).preset(name).output_dtype

    def model_name(self) -> str:
        """Return the model's name as the caller wrote it, "" for none.

        Raises:
            InputError: `model` is not a string.
        """
        return text_field(self.body, "model") or ""


def bind_dialect(request: Request, name: str) -> ApiState:
    """Make a dialect answer a request's errors and count in its metrics; returns the application's state."""
    state = api_state(request)
    request.state.dialect = state.dialect(name)
    return state


async def acquire_model(
    request: Request, state: ApiState, name: str, kind: OutputKind | None = None
) -> ServedModel:
    """Return a model, loaded first where need be, and hold it until the request has been answered.

    Args:
        request: Whose headers may shorten the deadline.
        state: The application's shared state.
        name: As the caller wrote it; "": the first model that gives the output wanted.
        kind: The output that is wanted; None: any.

    Raises:
        UnknownModelError: No model has the name.
        ModelUnavailableError: It cannot be loaded.
        DeadlineError: It was not loaded within the request's time.
    """
    pool = state.service.pool
    slot = pool.models.find(name, kind)
    stage_times(request.scope).model = slot.name
    try:
        async with asyncio.timeout(deadline_s(request, state) - time.monotonic()):
            return await pool.hold_for_request(slot)
    except TimeoutError:
        raise DeadlineError("The deadline passed before the model was loaded.") from None


async def read_request(
    request: Request, dialect: Dialect, *, authenticates: Authenticate = authenticate
) -> ApiRequest:
    """Take in a request in a dialect: check its key, refuse it while the model is loading, then read its body.

    Args:
        request: The request.
        dialect: The dialect that it is in.
        authenticates: Checks its key.

    Raises:
        AccessError: No key, or a wrong one, or one without the right that the route needs.
        RateLimitError: The key has used up what it may ask for.
        NotReadyError: The model is loading.
        BodyTooLargeError: The body has more bytes than the server reads.
        BodyTimeoutError: The body takes longer to come in than a request may.
        BodyFormatError: The body is not a JSON object.
        QueueFullError: Other requests' bodies leave no memory for this one.
    """
    state = bind_dialect(request, dialect.name)
    key_id, body = await authenticate_and_read_body(request, state, authenticates=authenticates)
    return ApiRequest(request, state, state.dialect(dialect.name), key_id, body)


async def authenticate_and_read_body(
    request: Request, state: ApiState, *, authenticates: Authenticate = authenticate
) -> tuple[str, dict[str, Any]]:
    """Check a request's key, refuse it while the model is loading, then read its body.

    Returns:
        The key's id and the parsed body.

    Raises:
        AccessError: No key, or a wrong one.
        RateLimitError: The key has used up what it may ask for.
        NotReadyError: The model is loading.
        BodyTooLargeError: The body has more bytes than the server reads.
        BodyTimeoutError: The body takes longer to come in than a request may.
        BodyFormatError: The body is not a JSON object.
        QueueFullError: Other requests' bodies leave no memory for this one.
    """
    key_id = authenticates(request, state.keys)
    _ = state.service  # raises while loading: nothing is read for a model that is not there yet
    body = await read_json_object(
        request,
        max_bytes=state.options.max_body_bytes,
        timeout_s=state.options.request_timeout_s,
        limits=state.options.json,
    )
    return key_id, body
