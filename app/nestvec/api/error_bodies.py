"""Error bodies: six mutually incompatible forms in the field, of which three stand for all (api-contract 0.4)."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from nestvec.errors import (
    AccessError,
    BodyTooLargeError,
    CapacityError,
    EmptyInputError,
    InputError,
    InputTooLongError,
    InternalError,
    NestvecError,
    NotReadyError,
    QueueFullError,
    RateLimitError,
    UnknownModelError,
    UnsupportedError,
)

Names = Mapping[str, str]
Envelope = Callable[[NestvecError, int, str, Names], Mapping[str, Any]]

# TEI's own words, in the case that it really sends.
TEI_TYPES: Final[tuple[tuple[type[NestvecError], str], ...]] = (
    (EmptyInputError, "Empty"),
    (UnsupportedError, "Backend"),
    (NotReadyError, "Unhealthy"),
    (CapacityError, "Overloaded"),
    (InputError, "Validation"),
    (AccessError, "Validation"),
)


def superset_error(
    error: NestvecError, status: int, request_id: str, names: Names
) -> dict[str, Any]:
    """A body that the OpenAI, Voyage, Jina and Cohere clients each understand.

    OpenAI's clients read `error`, Voyage's and Jina's need `detail`, Cohere's shows `message`; the superset
    was tried with each (api-contract 0.3).
    """
    message = spelled(error, request_id, names)
    fault = {
        "message": message,
        "type": _openai_type(error, status),
        "param": _param(error, names),
        "code": error.code,
    }
    return {"error": fault, "detail": message, "message": message}


def tei_error(error: NestvecError, status: int, request_id: str, names: Names) -> dict[str, Any]:
    """Text Embeddings Inference's: a string and a word for its kind."""
    del status
    kind = next((word for kind, word in TEI_TYPES if isinstance(error, kind)), "Backend")
    message = placed(error, request_id, names)
    if isinstance(error, InputTooLongError):
        least = "at least " if error.is_lower_bound else ""
        message = (
            f"Input validation error: `inputs` must have less than {error.limit_tokens} tokens. "
            f"Given: {least}{error.got_tokens}"
        )
    return {"error": message, "error_type": kind}


def string_error(error: NestvecError, status: int, request_id: str, names: Names) -> dict[str, Any]:
    """Ollama's and the Open Inference Protocol's: a string, whose clients fail on anything else."""
    del status
    return {"error": placed(error, request_id, names)}


def ollama_error(error: NestvecError, status: int, request_id: str, names: Names) -> dict[str, Any]:
    """Its own wording where its users search for it."""
    body = string_error(error, status, request_id, names)
    if isinstance(error, UnknownModelError):
        body["error"] = f"model '{error.name}' not found"
    if isinstance(error, InputTooLongError):
        body["error"] = f"the input length exceeds the context length: {body['error']}"
    return body


def spelled(error: NestvecError, request_id: str, names: Names) -> str:
    """The message, with fields by the names that the caller knows them by."""
    message = error.message
    for ours, theirs in names.items():
        message = message.replace(f"'{ours}'", f"'{theirs}'")
    if isinstance(error, InternalError):
        message = f"{message} (request id {request_id})"
    return message


def placed(error: NestvecError, request_id: str, names: Names) -> str:
    """The message, led by the field at fault, for bodies that have no other place for it."""
    message, place = spelled(error, request_id, names), _param(error, names)
    is_said = place is None or f"'{place}'" in message or isinstance(error, UnknownModelError)
    return message if is_said else f"{place}: {message}"


def _param(error: NestvecError, names: Names) -> str | None:
    """The field at fault by the caller's name for it; `input[i]` for an item of a list."""
    index = getattr(error, "input_index", None)
    param = getattr(error, "param", None) or (None if index is None else "input")
    if param is None:
        return None
    name = names.get(param, param)
    return name if index is None else f"{name}[{index}]"


def _openai_type(error: NestvecError, status: int) -> str:
    if isinstance(error, InputError) and error.code == "max_tokens_per_request":
        return error.code
    if isinstance(error, RateLimitError):
        return "insufficient_quota" if error.of == "quota" else error.of
    if isinstance(error, QueueFullError):
        return "requests"
    if isinstance(error, InputError | AccessError | BodyTooLargeError) or status < 500:  # noqa: PLR2004
        return "invalid_request_error"
    return "server_error"
