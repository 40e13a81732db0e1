"""What stands before the application: hosts and ports that a request may be for, what browsers may do with answers."""

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nestvec.api.error_handlers import unknown_url

OPERATIONS: Final = ("/metrics", "/admin")
EVERYWHERE: Final = ("/health", "/ping")
# Balancers ask for these by the address of the instance, whatever it is called outside.
ANY_HOST: Final = EVERYWHERE
CALLERS_HEADERS: Final = (
    *("authorization", "content-type", "api-key", "x-api-key", "x-request-id", "traceparent"),
    *("x-embed-priority", "x-request-timeout-ms", "x-embed-token-vocab", "cache-control"),
    *(f"x-stainless-{name}" for name in ("lang", "package-version", "os", "arch", "runtime")),
    *(f"x-stainless-{name}" for name in ("runtime-version", "async", "retry-count", "timeout")),
    *("x-stainless-read-timeout", "x-stainless-helper-method", "openai-organization"),
    *("openai-project", "openai-beta"),
)
SHOWN_HEADERS: Final = ("x-request-id", "retry-after", "x-embed-space", "x-embed-truncated")
# `/docs` runs a script of its own page; nothing is fetched from elsewhere.
PAGE_HEADERS: Final = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}


class HostGate:
    """Lets in what is for one of these hosts; health checks whatever they are for.

    Args:
        app: What it guards.
        hosts: Names, `*.example.org` too.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._guarded = TrustedHostMiddleware(app, allowed_hosts=list(hosts), www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event."""
        is_open = scope["type"] == "http" and scope["path"].startswith(ANY_HOST)
        await (self._app if is_open else self._guarded)(scope, receive, send)


class OperationsGate:
    """Keeps what is for operators on a port of its own, and everything else off it.

    Args:
        app: What it guards.
        port: For operators.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app, self._port = app, port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event."""
        if scope["type"] != "http" or scope["path"].startswith(EVERYWHERE):
            await self._app(scope, receive, send)
            return
        is_operators = scope["server"][1] == self._port
        if is_operators is scope["path"].startswith(OPERATIONS):
            await self._app(scope, receive, send)
            return
        await unknown_url(scope)(scope, receive, send)


class PageHeaders:
    """Tells browsers what a page may do, and pages where they are.

    Args:
        app: What is told so.
        root_path: Under which a proxy serves us.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app, self._root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event."""
        if self._root_path:
            scope["root_path"] = self._root_path

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", [])
                if any(
                    name == b"content-type" and value.startswith(b"text/html")
                    for name, value in headers
                ):
                    MutableHeaders(scope=message).update(PAGE_HEADERS)
            await send(message)

        await self._app(scope, receive, tell)


def with_gates(
    app: ASGIApp,
    *,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    operations_port: int = 0,
    root_path: str = "",
) -> ASGIApp:
    """An application behind those of the gates that the settings ask for.

    Args:
        app: What they guard.
        hosts: That requests may be for; none: any.
        origins: Whose pages may call; none: no page's.
        operations_port: For operators; 0: their routes are on the common one.
        root_path: Under which a proxy serves us.
    """
    gated: ASGIApp = PageHeaders(app, root_path)
    if origins:
        gated = CORSMiddleware(
            gated,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=list(CALLERS_HEADERS),
            expose_headers=list(SHOWN_HEADERS),
            max_age=3600,
        )
    if operations_port:
        gated = OperationsGate(gated, operations_port)
    return HostGate(gated, hosts) if hosts else gated
