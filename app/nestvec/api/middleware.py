"""Middleware in front of the application: which hosts and ports serve what, and what browsers may do with answers."""

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nestvec.api.error_handlers import unknown_url

OPERATIONS: Final = ("/metrics", "/admin")
# Served on every port, and under any host name: load balancers ask by the address of the instance.
HEALTH_CHECKS: Final = ("/health", "/ping")
REQUEST_HEADERS: Final = (
    *("authorization", "content-type", "api-key", "x-api-key", "x-request-id", "traceparent"),
    *("x-embed-priority", "x-request-timeout-ms", "x-embed-token-vocab", "cache-control"),
    *(f"x-stainless-{name}" for name in ("lang", "package-version", "os", "arch", "runtime")),
    *(f"x-stainless-{name}" for name in ("runtime-version", "async", "retry-count", "timeout")),
    *("x-stainless-read-timeout", "x-stainless-helper-method", "openai-organization"),
    *("openai-project", "openai-beta"),
)
EXPOSED_HEADERS: Final = (
    *("x-request-id", "retry-after", "x-embed-space", "x-embed-truncated"),
    *("x-embed-ignored-fields", "x-embed-unusual-token-ids"),
)
# `/docs` runs an inline script; nothing is fetched from elsewhere.
PAGE_HEADERS: Final = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}


class HostMiddleware:
    """Refuses requests that are for other hosts than these, except health checks.

    Args:
        app: The application that it guards.
        hosts: Host names; `*.example.org` stands for all below it.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._guarded = TrustedHostMiddleware(app, allowed_hosts=list(hosts), www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        is_health_check = scope["type"] == "http" and scope["path"].startswith(HEALTH_CHECKS)
        await (self._app if is_health_check else self._guarded)(scope, receive, send)


class OperationsPortMiddleware:
    """Serves operators' routes on a port of their own, and nothing else there except health checks.

    Args:
        app: The application that it guards.
        port: The operators' port.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app, self._port = app, port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer that its path is unknown."""
        if scope["type"] != "http" or scope["path"].startswith(HEALTH_CHECKS):
            await self._app(scope, receive, send)
            return
        is_operators_port = scope["server"][1] == self._port
        if is_operators_port is scope["path"].startswith(OPERATIONS):
            await self._app(scope, receive, send)
            return
        await unknown_url(scope)(scope, receive, send)


class PageHeadersMiddleware:
    """Adds headers to pages that tell browsers what a page may do, and sets the root path that links are relative to.

    Args:
        app: The application that it wraps.
        root_path: The path under which a proxy serves the application; "" for none.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app, self._root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add headers to its answer if that is a page."""
        if self._root_path:
            scope["root_path"] = self._root_path

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", [])
                if any(
                    name == b"content-type" and value.startswith(b"text/html")
                    for name, value in headers
                ):
                    MutableHeaders(scope=message).update(PAGE_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def with_middleware(
    app: ASGIApp,
    *,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    operations_port: int = 0,
    root_path: str = "",
) -> ASGIApp:
    """Wrap an application in the middleware that the settings ask for.

    Args:
        app: The application.
        hosts: Host names that requests may be for; none: any.
        origins: Origins whose pages may call; none: no page may.
        operations_port: The operators' port; 0: their routes are on the common one.
        root_path: The path under which a proxy serves the application; "" for none.
    """
    wrapped: ASGIApp = PageHeadersMiddleware(app, root_path)
    if origins:
        wrapped = CORSMiddleware(
            wrapped,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=list(REQUEST_HEADERS),
            expose_headers=list(EXPOSED_HEADERS),
            max_age=3600,
        )
    if operations_port:
        wrapped = OperationsPortMiddleware(wrapped, operations_port)
    return HostMiddleware(wrapped, hosts) if hosts else wrapped
