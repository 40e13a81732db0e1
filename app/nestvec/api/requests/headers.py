"""Headers of every dialect: how long a caller waits, how urgent the call is, what the answer says of its vectors."""

from typing import Final

from fastapi import Request

from nestvec.api.http.body import started_s
from nestvec.api.state import ApiState
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall, Priority
from nestvec.errors import InputError

VOCABULARY_HEADER: Final = "x-embed-token-vocab"
IGNORED_FIELDS_HEADER: Final = "x-embed-ignored-fields"
UNUSUAL_IDS_HEADER: Final = "x-embed-unusual-token-ids"
SCRIPT_HEADER: Final = "x-embed-script"
# Up to so large a share of the tokens is lost on words that the model does not know, without a header that says so.
MAX_UNKNOWN_SHARE: Final = 0.05
# A client that waits N seconds should have our answer a little before it gives up and sends the work again.
CLIENT_MARGIN_S: Final = 1.0


def deadline_s(request: Request, state: ApiState) -> float:
    """Return the monotonic time, in seconds, at which an answer stops being of use; counted from the request's headers.

    Raises:
        InputError: `x-request-timeout-ms` is not a positive number.
    """
    wait_s = state.options.request_timeout_s
    timeout = request.headers.get("x-request-timeout-ms")
    if timeout is not None:
        timeout_ms = _positive(timeout)
        if timeout_ms is None:
            raise InputError("x-request-timeout-ms must be a positive number of milliseconds")
        wait_s = min(wait_s, timeout_ms / 1000)
    hint_s = _positive(request.headers.get("x-stainless-read-timeout", ""))
    if hint_s is not None and hint_s > 2 * CLIENT_MARGIN_S:
        wait_s = min(wait_s, hint_s - CLIENT_MARGIN_S)
    return started_s(request) + wait_s


def priority(request: Request) -> Priority | None:
    """Return the scheduling class that the caller asks for; None, also for an unknown word: the call's size decides."""
    word = request.headers.get("x-embed-priority", "").lower()
    return Priority(word) if word in set(Priority) else None


def add_answer_header(request: Request, name: str, value: str) -> None:
    """Give the answer of a request one header more; `RawRoute` adds it."""
    request.state.answer_headers = {**getattr(request.state, "answer_headers", {}), name: value}


def result_headers(result: EmbedResult, call: EmbedCall) -> dict[str, str]:
    """Return the headers in which every dialect describes the vectors of its answer."""
    headers = {"x-embed-space": result.space}
    if windowed := sum(long_input.windows > 1 for long_input in result.long_inputs):
        headers["x-embed-windows"] = str(windowed)
    if truncated := sum(result.is_truncated):
        headers["x-embed-truncated"] = str(truncated)
    if result.unknown_tokens:
        unknown = sum(result.unknown_tokens)
        if unknown > MAX_UNKNOWN_SHARE * sum(result.input_tokens):
            headers["x-embed-unknown"] = str(unknown)
    if call.prompt_role is not None and result.prompt_used is None:
        headers["x-embed-prompt"] = "none"
    if result.layers:
        headers["x-embed-layers"] = str(result.layers)
    if result.map_name:
        headers["x-embed-map"] = result.map_name
    if result.route:
        headers["x-embed-route"] = result.route
    if result.quantization:
        headers["x-embed-quantization"] = result.quantization
    return headers


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
