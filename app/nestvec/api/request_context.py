"""The one middleware: request ids, tolerant paths, counting and the access log. It never touches a body."""

import re
import time
import uuid
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nestvec.api.error_handlers import CLIENT_CLOSED
from nestvec.api.http.auth import rate_headers
from nestvec.api.http.body import CLAIM, Claim
from nestvec.api.state import ApiState, Phase
from nestvec.engine.models.model_registry import VISIBLE
from nestvec.keys.keyring import Pass
from nestvec.observability.logs import frames_of, get_logger

log = get_logger(__name__)

SANE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
QUIET_ROUTES: Final = {"/health", "/health/live", "/health/ready", "/metrics"}
UNMATCHED: Final = "unmatched"
NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")  # answers are what they say they are
AZURE_PREFIX: Final = "/openai/"
AZURE_DEPLOYMENTS: Final = "/openai/deployments/"


class RequestContext:
    """ASGI middleware.

    Stands outside the application, so that answers to crashes are counted and carry an id as well.

    Args:
        app: What it wraps.
        state: The application's; its metrics count the requests.
    """

    def __init__(self, app: ASGIApp, state: ApiState) -> None:
        self.state = state
        self._app = app
        self._metrics = state.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["path"] = tolerant_path(scope["path"])
        request_id = _request_id(scope)
        scope["nestvec.request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        VISIBLE.set(None)  # a pipelined request begins in the task of the one before it
        claim = scope[CLAIM] = Claim(self.state.bodies)
        started = time.monotonic()
        status = CLIENT_CLOSED  # stays where the client left before an answer began

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                took_ms = round((time.monotonic() - started) * 1000)
                named = request_id.encode("latin-1")
                # Appended raw: nothing inside sets these, and each look-up of a name costs.
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", named),
                    (b"request-id", named),  # voyageai reads this one
                    (b"openai-processing-ms", b"%d" % took_ms),
                    NO_SNIFFING,
                    *self._told(scope),
                ]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:  # noqa: BLE001 - Starlette passes it on after answering 500
            # Not passed further: the web server would log its message, which may quote a caller's text.
            log.debug("request_crashed_outside", frames=frames_of(error))
        finally:
            self._metrics.in_flight.dec()
            claim.release()
            self.state.let_go()
            self._count(scope, status, time.monotonic() - started)

    def _told(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """What the answer says of the caller's limits and of the connection; counts by key."""
        state = self.state
        told: list[tuple[bytes, bytes]] = []
        found = scope.get("state", {}).get("key_pass")
        if isinstance(found, Pass) and found.key_id:
            rates = rate_headers(found, state.keys)
            told += [(name.encode(), value.encode()) for name, value in rates.items()]
            self._metrics.key_requests.labels(found.key_id).inc()
        if state.phase is Phase.DRAINING:
            told.append((b"connection", b"close"))  # so that no request meets the closing port
        return told

    def _count(self, scope: Scope, status: int, took_s: float) -> None:
        matched = scope.get("route")
        route = getattr(matched, "path", UNMATCHED)
        said = scope.get("state", {}).get("dialect")
        tags = getattr(matched, "tags", None) or [UNMATCHED]
        dialect = said.name if said is not None else tags[0]
        self._metrics.requests.labels(route, dialect, str(status)).inc()
        self._metrics.request_duration.labels(route, outcome_of(status)).observe(took_s)
        write = log.debug if route in QUIET_ROUTES else log.info
        facts = scope.get("state", {}).get("log_facts", {})
        duration_ms = round(took_s * 1000, 1)
        write("request", route=route, status=status, duration_ms=duration_ms, **facts)


def tolerant_path(path: str) -> str:
    """Forgive a trailing slash, a doubled /v1 (the commonest misconfiguration of base URLs), and Azure's prefix."""
    if len(path) > 1:
        path = path.rstrip("/") or "/"
    if path.startswith(AZURE_PREFIX) and not path.startswith(AZURE_DEPLOYMENTS):
        rest = path.removeprefix(AZURE_PREFIX)
        path = f"/{rest}" if rest.startswith("v1/") else f"/v1/{rest}"
    return path.removeprefix("/v1") if path.startswith("/v1/v1/") else path


def outcome_of(status: int) -> str:
    """A status as one of four words."""
    if status == CLIENT_CLOSED:
        return "cancelled"
    if status < 400:  # noqa: PLR2004 - HTTP's own border
        return "ok"
    return "rejected" if status < 500 else "error"  # noqa: PLR2004 - HTTP's own border


def _request_id(scope: Scope) -> str:
    """The caller's id where it is a sane one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if SANE_REQUEST_ID.fullmatch(given):
                return str(given)
    return f"req_{uuid.uuid4().hex}"
