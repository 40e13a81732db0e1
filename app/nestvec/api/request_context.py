"""The outermost middleware: request ids, tolerant paths, metrics and the access log. It never touches a body."""

import re
import time
import uuid
from collections.abc import Sequence
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nestvec.api.dialect_table import Dialect
from nestvec.api.error_handlers import CLIENT_CLOSED
from nestvec.api.http.access_log import ANSWERED_ERROR, QUIET_ROUTES, AccessLog
from nestvec.api.http.answer_memory import ANSWER_BYTES
from nestvec.api.http.auth import SHARED_REQUESTS, api_key_of, rate_limit_headers, take_query_key
from nestvec.api.http.body import BODY_RESERVATION, HEADERS_CAME_S
from nestvec.api.http.body_memory import BodyReservation
from nestvec.api.http.raw_route import IS_HEAD
from nestvec.api.http.stage_times import STAGE_TIMES, StageTimes
from nestvec.api.middleware import HEALTH_CHECKS
from nestvec.api.middleware import OPERATIONS as OPERATORS_ROUTES
from nestvec.api.state import ApiState, Phase
from nestvec.engine.models.model_registry import visible_models
from nestvec.errors import NestvecError
from nestvec.keys.keyring import KeyGrant
from nestvec.observability.http_metrics import OPERATIONS, Answer
from nestvec.observability.logs import frames_of, get_logger
from nestvec.observability.tracing.request_trace import begin_request
from nestvec.observability.tracing.trace_context import TraceContext

log = get_logger(__name__)

SANE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
UNMATCHED: Final = "unmatched"
OPERATORS_PATHS: Final = (*OPERATORS_ROUTES, *HEALTH_CHECKS)
# Keeps browsers from taking an answer for another type than it says.
NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")
DOUBLED_V1: Final = re.compile("(?:/v1)+(?=/v1/)")
SLASHES: Final = re.compile("/{2,}")
AZURE_PREFIX: Final = "/openai/"
AZURE_DEPLOYMENTS: Final = "/openai/deployments/"


class RequestContextMiddleware:
    """ASGI middleware that gives each request an id, counts it and logs it.

    It stands outside the application, so that answers to crashes are counted and carry an id as well.

    Args:
        app: The application that it wraps.
        state: The application's state, whose metrics count the requests.
        root_path: The path under which a proxy serves the application, without a slash at its end; "" for none. Proxies
            that take it off and proxies that leave it are served alike.
    """

    def __init__(self, app: ASGIApp, state: ApiState, *, root_path: str = "") -> None:
        self.state = state
        self._app = app
        self._root_path = root_path
        self._metrics = state.metrics
        self._access_log = AccessLog(
            state.options.access_log_sample_ratio, state.options.slow_request_s
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; events that are not of HTTP pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"
        if is_head:
            # Answered as GET is, without the body. A copy, as the web server frames its answer by its own scope.
            scope = {**scope, "method": "GET", IS_HEAD: True}
        self._set_path(scope)
        take_query_key(scope)
        request_id = _request_id(scope)
        scope["nestvec.request_id"] = request_id
        # A pipelined request begins in the task of the one before it, and would see the models of that one's key.
        visible_models.set(None)
        reservation = scope[BODY_RESERVATION] = BodyReservation(self.state.body_memory)
        started = scope[HEADERS_CAME_S] = time.monotonic()
        stages = scope[STAGE_TIMES] = self._begin(scope, request_id, started)
        status = CLIENT_CLOSED  # stays so where the client leaves before an answer begins

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                stages.encoded()
                took_ms = round((time.monotonic() - started) * 1000)
                encoded_id = request_id.encode("latin-1")
                # Appended raw: nothing inside sets these, and each look-up of a name costs time.
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", encoded_id),
                    (b"request-id", encoded_id),  # read by voyageai
                    (b"openai-processing-ms", b"%d" % took_ms),
                    NO_SNIFFING,
                    *self._extra_headers(scope),
                ]
                if timing := stages.header():
                    message["headers"].append((b"server-timing", timing))
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        self._metrics.http.in_flight.inc()
        try:
            if self.state.keys.shares_rates and scope["path"] not in QUIET_ROUTES:
                key = api_key_of(Headers(scope=scope))
                scope[SHARED_REQUESTS] = await self.state.keys.take_shared_request(key)
            await self._app(scope, receive, send_with_headers)
        except Exception as error:  # noqa: BLE001 - Starlette passes it on after answering 500
            # Not raised again: the web server would log its message, which may quote a caller's text.
            log.debug("request_crashed_outside", frames=frames_of(error))
        finally:
            self._metrics.http.in_flight.dec()
            reservation.release()
            if answer_bytes := scope.get(ANSWER_BYTES):
                self.state.answer_memory.give(answer_bytes)
            self.state.release_models()
            stages.written()
            self._count(scope, status, time.monotonic() - started, stages)

    def _begin(self, scope: Scope, request_id: str, started_s: float) -> StageTimes:
        """Bind what all log lines of a request say; return its stages, with its trace where that is recorded."""
        parent, recorder = TraceContext.of_headers(scope["headers"]), self.state.recorder
        trace = None
        if recorder is not None and scope["path"] not in QUIET_ROUTES:
            trace = begin_request(recorder, parent, scope["method"], started_s)
        stages = StageTimes(started_s, trace)
        place = parent if trace is None else trace.place
        structlog.contextvars.clear_contextvars()
        if place is None:
            structlog.contextvars.bind_contextvars(request_id=request_id)
            return stages
        structlog.contextvars.bind_contextvars(request_id=request_id, trace_id=place.trace_id)
        # Of a trace that somebody keeps: we do, or, where no traces are recorded here, the caller says so.
        if trace is not None or (recorder is None and place.is_sampled):
            stages.kept_trace_id = place.trace_id
        return stages

    def _set_path(self, scope: Scope) -> None:
        """Set the path and the root path so that all that follow, the router too, see one and the same path."""
        path, root_path = scope["path"], self._root_path
        if not root_path:
            scope["path"] = tolerant_path(path)
            return
        path = SLASHES.sub("/", path)
        if path == root_path or path.startswith(f"{root_path}/"):
            path = path[len(root_path) :] or "/"
        scope["root_path"] = root_path
        # With the root path before it, as ASGI has it: what is below is taken off once, and never twice.
        scope["path"] = root_path + tolerant_path(path)

    def _extra_headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Return headers of the key's rate limits and of the connection; counts the request for its key."""
        state = self.state
        headers: list[tuple[bytes, bytes]] = []
        grant = scope.get("state", {}).get("key_grant")
        if isinstance(grant, KeyGrant) and grant.key_id:
            rates = rate_limit_headers(grant, state.keys)
            headers += [(name.encode(), value.encode()) for name, value in rates.items()]
            keys = self._metrics.keys
            keys.requests.labels(keys.label_of(grant.key_id)).inc()
        if state.phase is Phase.DRAINING:
            headers.append((b"connection", b"close"))  # so that no request meets the closing port
        return headers

    def _count(self, scope: Scope, status: int, took_s: float, stages: StageTimes) -> None:
        matched = scope.get("route")
        route = getattr(matched, "path", UNMATCHED)
        error: NestvecError | None = scope.get(ANSWERED_ERROR)
        dialect, code = _dialect_of(scope, matched, route), error.code if error is not None else ""
        answer = Answer(route, dialect, stages.model, status, outcome_of(status), code)
        self._metrics.http.request_done(answer, took_s, stages.seconds(), stages.kept_trace_id)
        self._access_log.write(answer, took_s, stages, scope)
        if stages.trace is not None:
            error = scope.get(ANSWERED_ERROR)
            method = "HEAD" if scope.get(IS_HEAD) else scope["method"]
            code = "" if error is None else error.code
            stages.trace.answered(answer, method, scope["scheme"], code)


def tolerant_path(path: str) -> str:
    """Forgive trailing and doubled slashes, a doubled /v1 (a common mistake in base URLs), and Azure's prefix."""
    if "//" in path:
        path = SLASHES.sub("/", path)
    if len(path) > 1:
        path = path.removesuffix("/")
    if path.startswith(AZURE_PREFIX) and not path.startswith(AZURE_DEPLOYMENTS):
        tail = path.removeprefix(AZURE_PREFIX)
        path = f"/{tail}" if tail.startswith("v1/") else f"/v1/{tail}"
    doubled = DOUBLED_V1.match(path)
    return path if doubled is None else path[doubled.end() :]


def _dialect_of(scope: Scope, matched: object, route: str) -> str:
    """Return the dialect that a request was in; pages and files that no dialect has are operators' too."""
    if matched is None:
        return UNMATCHED
    if route.startswith(OPERATORS_PATHS):
        return OPERATIONS
    bound: Dialect | None = scope.get("state", {}).get("dialect")
    tags: Sequence[str] = getattr(matched, "tags", None) or [OPERATIONS]
    return tags[0] if bound is None else bound.name


def outcome_of(status: int) -> str:
    """Return a status as one of four words: "ok", "rejected", "error" or "cancelled"."""
    if status == CLIENT_CLOSED:
        return "cancelled"
    if status < 400:  # noqa: PLR2004 - HTTP's own border
        return "ok"
    return "rejected" if status < 500 else "error"  # noqa: PLR2004 - HTTP's own border


def _request_id(scope: Scope) -> str:
    """Return the caller's id where it is a sane one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            request_id = value.decode("latin-1")
            if SANE_REQUEST_ID.fullmatch(request_id):
                return str(request_id)
    return f"req_{uuid.uuid4().hex}"
