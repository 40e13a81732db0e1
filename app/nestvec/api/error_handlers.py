"""The one table from error classes to HTTP statuses, and how an error becomes a response in its dialect."""

import math
from typing import Final

import orjson
from fastapi import FastAPI, Request, Response
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from nestvec.api.dialect_table import DIALECTS, OPENAI, Dialect, dialect_of_path
from nestvec.api.http.access_log import ANSWERED_ERROR
from nestvec.api.http.near_misses import RouteTable
from nestvec.api.state import api_state
from nestvec.errors import (
    AccessError,
    BodyTimeoutError,
    BodyTooLargeError,
    CapacityError,
    DeadlineError,
    ForbiddenError,
    InputError,
    InternalError,
    NestvecError,
    NotFoundError,
    NotReadyError,
    QueueFullError,
    QuotaError,
    RateLimitError,
    StoreError,
    UnknownModelError,
)
from nestvec.observability.logs import frames_of, get_logger

log = get_logger(__name__)

# The first match wins: subclasses stand before their base.
STATUSES: Final[tuple[tuple[type[NestvecError], int], ...]] = (
    (UnknownModelError, 404),
    (NotFoundError, 404),
    (BodyTimeoutError, 408),
    (BodyTooLargeError, 413),
    (QuotaError, 413),
    (InputError, 400),
    (ForbiddenError, 403),
    (AccessError, 401),
    (QueueFullError, 429),
    (RateLimitError, 429),
    (NotReadyError, 503),
    (DeadlineError, 504),
    (CapacityError, 503),
    (StoreError, 503),
    (NestvecError, 500),
)
# Bounds of `retry-after`, which has whole seconds: OpenAI's clients ignore more than 120, and less than one second
# stands in `retry-after-ms` only.
MIN_RETRY_AFTER_S: Final = 1
MAX_RETRY_AFTER_S: Final = 120
# nginx's status for a client that went away; never sent, only metrics and logs show it.
CLIENT_CLOSED: Final = 499


def status_of(error: NestvecError, dialect: Dialect = OPENAI) -> int:
    """Return the HTTP status of an error in a dialect."""
    table = (*dialect.statuses, *STATUSES)
    return next(status for kind, status in table if isinstance(error, kind))


def unknown_url(scope: Scope) -> Response:
    """Return the answer to a request that no route is for, for middleware in front of the application."""
    path = get_route_path(scope)
    dialect = dialect_of_path(path)
    error = HttpError(f"Invalid URL ({scope['method']} {path[:200]})")
    request_id = str(scope.get("nestvec.request_id", ""))
    body = orjson.dumps(dialect.envelope(error, 404, request_id, dialect.field_names))
    return Response(body, 404, media_type="application/json")


def error_response(error: NestvecError, dialect: Dialect, request_id: str) -> Response:
    """Render an error as a response.

    Args:
        error: What went wrong.
        dialect: Decides on the status and the form of the body.
        request_id: Named in the message of a server fault, so that it can be found in the logs.
    """
    status = status_of(error, dialect)
    headers: dict[str, str] = {}
    if isinstance(error, CapacityError) and status != 504:  # noqa: PLR2004 - a deadline is the caller's
        retry_after_s = max(MIN_RETRY_AFTER_S, math.ceil(error.retry_after_s))
        headers["retry-after"] = str(min(MAX_RETRY_AFTER_S, retry_after_s))
        if error.retry_after_s < 1:
            headers["retry-after-ms"] = str(max(1, round(error.retry_after_s * 1000)))
    is_permanent = isinstance(error, InternalError) and error.is_permanent
    if is_permanent or (isinstance(error, RateLimitError) and error.of == "quota"):
        headers["x-should-retry"] = "false"
    if status == 408:  # noqa: PLR2004 - the status itself
        headers["connection"] = "close"  # the rest of the body is not waited for (RFC 9110 15.5.9)
    if status == 401:  # noqa: PLR2004 - the status itself
        headers["www-authenticate"] = "Bearer"
    body = orjson.dumps(dialect.envelope(error, status, request_id, dialect.field_names))
    return Response(body, status, headers, media_type="application/json")


class HttpError(NestvecError):
    """The request's path or method is not served here."""

    code = "unknown_url"


def install_error_handlers(app: FastAPI, hidden: tuple[str, ...] = ()) -> None:
    """Make an application answer each error in the dialect of its request.

    Args:
        app: The application.
        hidden: Beginnings of paths that no caller is pointed to.
    """
    table: RouteTable | None = None  # made when the application has all of its routes

    async def handle_known(request: Request, error: Exception) -> Response:
        if not isinstance(error, NestvecError):
            raise error
        if status_of(error) >= 500 and not isinstance(error, CapacityError):  # noqa: PLR2004 - server faults
            log.error("request_failed", code=error.code, frames=frames_of(error))
        if isinstance(error, RateLimitError):
            state = api_state(request)
            keys = state.metrics.keys
            keys.rate_limited.labels(keys.label_of(error.key_id), error.of).inc()
        request.scope[ANSWERED_ERROR] = error
        return error_response(error, _dialect(request), _request_id(request))

    async def handle_http(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        nonlocal table
        table = table or RouteTable(app.routes, hidden)
        method, path = request.method, get_route_path(request.scope)
        meant = table.meant_by(method, path)
        hint = "" if meant is None else f". Did you mean {meant}?"
        http_error = request.scope[ANSWERED_ERROR] = HttpError(
            f"Invalid URL ({method} {path[:200]}){hint}"
        )
        dialect, status = _dialect(request), error.status_code
        content = dialect.envelope(http_error, status, _request_id(request), dialect.field_names)
        headers = dict(error.headers or {})
        return Response(orjson.dumps(content), status, headers, media_type="application/json")

    async def handle_gone(request: Request, error: Exception) -> Response:
        # The client left in the middle of its body, or while its inputs waited: nobody reads this.
        del request, error
        return Response(status_code=CLIENT_CLOSED)

    async def handle_unknown(request: Request, error: Exception) -> Response:
        log.error("request_crashed", frames=frames_of(error))
        fault = InternalError("The server had an error while processing your request.")
        request.scope[ANSWERED_ERROR] = fault
        return error_response(fault, _dialect(request), _request_id(request))

    app.add_exception_handler(NestvecError, handle_known)
    app.add_exception_handler(HTTPException, handle_http)
    app.add_exception_handler(ClientDisconnect, handle_gone)
    app.add_exception_handler(Exception, handle_unknown)


def _dialect(request: Request) -> Dialect:
    """Return the dialect that the handler has bound, else the route's, else the one that the path looks like."""
    bound = getattr(request.state, "dialect", None)
    if isinstance(bound, Dialect):
        return bound
    tags = getattr(request.scope.get("route"), "tags", None) or [""]
    if tags[0] in DIALECTS:
        return api_state(request).dialect(tags[0])
    return dialect_of_path(get_route_path(request.scope))


def _request_id(request: Request) -> str:
    return str(request.scope.get("nestvec.request_id", ""))
