"""Middleware in front of the application: which hosts and ports serve what, and what browsers may do with answers."""

from collections.abc import Callable, Sequence
from typing import Final

from starlette._utils import get_route_path
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nestvec.api.error_handlers import unknown_url
from nestvec.api.http.front_page import FRONT_PAGE_STYLE, source_of
from nestvec.api.loopback import LoopbackMiddleware

OPERATIONS: Final = ("/metrics", "/admin")
# Served on every port, and under any host name: load balancers ask by the address of the instance.
HEALTH_CHECKS: Final = ("/health", "/ping", "/v2/health/")
EXPOSED_HEADERS: Final = (
    *("x-request-id", "retry-after", "x-embed-space", "x-embed-truncated"),
    *("x-embed-ignored-fields", "x-embed-unusual-token-ids"),
)
# What a page may do: load what lies beside it and call this server, and nothing else.
STRICT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' {styles}; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
# Swagger's page runs an inline script and sets styles in its markup; it too fetches nothing from elsewhere.
SWAGGER_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
SWAGGER_PATH: Final = "/docs"
PAGE_HEADERS: Final = {
    "content-security-policy": STRICT_POLICY.format(styles=source_of(FRONT_PAGE_STYLE)),
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
SWAGGER_HEADERS: Final = {**PAGE_HEADERS, "content-security-policy": SWAGGER_POLICY}


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
        is_health_check = scope["type"] == "http" and get_route_path(scope).startswith(
            HEALTH_CHECKS
        )
        await (self._app if is_health_check else self._guarded)(scope, receive, send)


class OperationsPortMiddleware:
    """Serves operators' routes on a port of their own, and nothing else there except health checks.

    What it looks at is the path that Starlette's router will look at, below the root path.

    Args:
        app: The application that it guards.
        port: The operators' port.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app, self._port = app, port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer that its path is unknown."""
        path = get_route_path(scope) if scope["type"] == "http" else ""
        if scope["type"] != "http" or path.startswith(HEALTH_CHECKS):
            await self._app(scope, receive, send)
            return
        is_operators_port = scope["server"][1] == self._port
        if is_operators_port is path.startswith(OPERATIONS):
            await self._app(scope, receive, send)
            return
        await unknown_url(scope)(scope, receive, send)


class PageHeadersMiddleware:
    """Adds headers to pages that tell browsers what a page may do.

    Args:
        app: The application that it wraps.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add headers to its answer if that is a page."""
        is_swagger = scope["type"] == "http" and get_route_path(scope).startswith(SWAGGER_PATH)
        page_headers = SWAGGER_HEADERS if is_swagger else PAGE_HEADERS

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", [])
                if any(
                    name == b"content-type" and value.startswith(b"text/html")
                    for name, value in headers
                ):
                    MutableHeaders(scope=message).update(page_headers)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def with_middleware(
    app: ASGIApp,
    *,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    operations_port: int = 0,
    is_local_while: Callable[[], bool] | None = None,
) -> ASGIApp:
    """Wrap an application in the middleware that the settings ask for.

    Args:
        app: The application.
        hosts: Host names that requests may be for; none: any, or this machine's.
        origins: Origins whose pages may call; none: no page may.
        operations_port: The operators' port; 0: their routes are on the common one.
        is_local_while: Tells whether requests on a loopback address must be for this machine and from its pages;
            None: they never must.
    """
    wrapped: ASGIApp = PageHeadersMiddleware(app)
    if origins:
        wrapped = CORSMiddleware(
            wrapped,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            # The origin is what protects: a closed list of headers only breaks the clients that add one.
            allow_headers=["*"],
            expose_headers=list(EXPOSED_HEADERS),
            max_age=3600,
        )
    if operations_port:
        wrapped = OperationsPortMiddleware(wrapped, operations_port)
    by_host = HostMiddleware(wrapped, hosts) if hosts else wrapped
    if is_local_while is None:
        return by_host
    return LoopbackMiddleware(
        wrapped,
        otherwise=by_host,
        hosts=hosts,
        origins=origins,
        is_open=is_local_while,
        exempt=HEALTH_CHECKS,
    )
