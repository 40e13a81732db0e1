"""Bodies of errors: the vendors have seven forms that exclude each other, and four of ours satisfy all their clients.

What each client does with another form is in docs/wire-behaviour.md, "Errors".
"""

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

FieldNames = Mapping[str, str]
Envelope = Callable[[NestvecError, int, str, FieldNames], Mapping[str, Any]]

# Codes of errors that name fields as the caller wrote them, and as the dialect has them.
NAMES_AS_WRITTEN: Final = ("foreign_field", "unknown_field")
# TEI's words, capitalized as its router sends them.
TEI_TYPES: Final[tuple[tuple[type[NestvecError], str], ...]] = (
    (EmptyInputError, "Empty"),
    (UnsupportedError, "Backend"),
    (NotReadyError, "Unhealthy"),
    (CapacityError, "Overloaded"),
    (InputError, "Validation"),
    (AccessError, "Validation"),
)

GOOGLE_TYPES: Final = "type.googleapis.com/google.rpc."
GOOGLE_STATUSES: Final[Mapping[int, str]] = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def superset_error(
    error: NestvecError, status: int, request_id: str, names: FieldNames
) -> dict[str, Any]:
    """Return a body that the OpenAI, Voyage, Jina and Cohere clients each understand.

    OpenAI's clients read `error`, Voyage's and Jina's need `detail`, Cohere's shows `message`; each was tried with
    the superset.
    """
    message = message_for_caller(error, request_id, names)
    fault = {
        "message": message,
        "type": _openai_type(error, status),
        "param": _param(error, names),
        "code": error.code,
    }
    return {"error": fault, "detail": message, "message": message}


def tei_error(
    error: NestvecError, status: int, request_id: str, names: FieldNames
) -> dict[str, Any]:
    """Return the body of Text Embeddings Inference: a message, and a word for the kind of error."""
    del status
    kind = next((word for kind, word in TEI_TYPES if isinstance(error, kind)), "Backend")
    message = message_with_field(error, request_id, names)
    if isinstance(error, InputTooLongError):
        at_least = "at least " if error.is_lower_bound else ""
        message = (
            f"Input validation error: `inputs` must have less than {error.limit_tokens} tokens. "
            f"Given: {at_least}{error.got_tokens}"
        )
    return {"error": message, "error_type": kind}


def string_error(
    error: NestvecError, status: int, request_id: str, names: FieldNames
) -> dict[str, Any]:
    """Return the body of Ollama and of the Open Inference Protocol: one string, since their clients fail on others."""
    del status
    return {"error": message_with_field(error, request_id, names)}


def ollama_error(
    error: NestvecError, status: int, request_id: str, names: FieldNames
) -> dict[str, Any]:
    """Return the body of Ollama, with Ollama's wording where users search for it."""
    body = string_error(error, status, request_id, names)
    if isinstance(error, UnknownModelError):
        body["error"] = f"model '{error.name}' not found"
    if isinstance(error, InputTooLongError):
        body["error"] = f"the input length exceeds the context length: {body['error']}"
    return body


def gemini_error(
    error: NestvecError, status: int, request_id: str, names: FieldNames
) -> dict[str, Any]:
    """Return the body of Google's APIs: a google.rpc.Status, with the field at fault and our code as its details.

    Source: google/rpc/status.proto and error_details.proto; the words of `status` are those of google/rpc/code.proto.
    """
    message = message_for_caller(error, request_id, names)
    details: list[dict[str, Any]] = []
    if (param := _param(error, names)) is not None:
        violation = {"field": param, "description": message}
        details.append({"@type": f"{GOOGLE_TYPES}BadRequest", "fieldViolations": [violation]})
    if error.code:
        details.append(
            {"@type": f"{GOOGLE_TYPES}ErrorInfo", "reason": error.code.upper(), "domain": "nestvec"}
        )
    word = GOOGLE_STATUSES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")  # noqa: PLR2004
    return {"error": {"code": status, "message": message, "status": word, "details": details}}


def message_for_caller(error: NestvecError, request_id: str, names: FieldNames) -> str:
    """Return an error's message with fields by the names that the caller's dialect has for them."""
    message = error.message
    for name, dialect_name in () if error.code in NAMES_AS_WRITTEN else names.items():
        message = message.replace(f"'{name}'", f"'{dialect_name}'")
    if isinstance(error, InternalError):
        message = f"{message} (request id {request_id})"
    return message


def message_with_field(error: NestvecError, request_id: str, names: FieldNames) -> str:
    """Return an error's message with the field at fault before it, for bodies that have no other place for it."""
    message, param = message_for_caller(error, request_id, names), _param(error, names)
    is_named = param is None or f"'{param}'" in message or isinstance(error, UnknownModelError)
    return message if is_named else f"{param}: {message}"


def _param(error: NestvecError, names: FieldNames) -> str | None:
    """Return the field at fault by the caller's name for it; `input[i]` for an item of a list."""
    index = getattr(error, "input_index", None)
    param = getattr(error, "param", None) or (None if index is None else "input")
    if param is None:
        return None
    name = param if error.code in NAMES_AS_WRITTEN else names.get(param, param)
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
