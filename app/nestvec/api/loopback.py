"""A server on a loopback address without keys answers this machine only, also where a browser on it is the caller.

A page on the internet may give its own name the address 127.0.0.1 once it is loaded (DNS rebinding, CVE-2024-28224 of
Ollama), and may send simple requests to any address at all. What gives both away are the headers that a browser sets
and a page cannot: `Host` is the page's name, `Origin` the page's origin. SDKs and curl send no `Origin`.
"""

import ipaddress
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from nestvec.api.dialect_table import dialect_of_path
from nestvec.api.error_handlers import error_response
from nestvec.errors import ForbiddenError

# Names of this machine inside its containers; nobody can register a name under .internal.
CONTAINER_NAMES: Final = ("host.docker.internal", "host.containers.internal")
# The longest name that DNS has (RFC 1035, 2.3.4), with a port.
MAX_AUTHORITY_CHARS: Final = 262
ANY: Final = "*"


class LoopbackMiddleware:
    """Refuses requests for foreign hosts and from foreign pages, on a loopback address and while no key is asked for.

    Args:
        app: The application that it guards.
        otherwise: What answers where no guard is needed: the connection came in on another address, or callers need
            a key.
        hosts: Further host names that requests may be for; `*.example.org` stands for all below it, `*` for any.
        origins: Further origins whose pages may call; `*`: any.
        is_open: Tells whether callers need no key.
        exempt: Beginnings of paths that are answered under any name.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        otherwise: ASGIApp,
        hosts: Sequence[str],
        origins: Sequence[str],
        is_open: Callable[[], bool],
        exempt: tuple[str, ...],
    ) -> None:
        self._app, self._otherwise, self._is_open, self._exempt = app, otherwise, is_open, exempt
        self._hosts = tuple(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        # What is cached is bounded by the length of an authority.
        self._verdict = lru_cache(maxsize=256)(self._judge)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or not self._is_guarded(scope):
            await self._otherwise(scope, receive, send)
            return
        path = get_route_path(scope)
        if path.startswith(self._exempt):
            await self._app(scope, receive, send)
            return
        host = origin = b""
        for name, value in scope["headers"]:
            if name == b"host" and not host:
                host = value
            elif name == b"origin":
                origin = value
        if max(len(host), len(origin)) > MAX_AUTHORITY_CHARS:
            error: ForbiddenError | None = _foreign_host()
        else:
            error = self._verdict(host, origin)
        if error is None:
            await self._app(scope, receive, send)
            return
        request_id = str(scope.get("nestvec.request_id", ""))
        await error_response(error, dialect_of_path(path), request_id)(scope, receive, send)

    def _is_guarded(self, scope: Scope) -> bool:
        server = scope.get("server")
        return server is not None and is_loopback_name(server[0]) and self._is_open()

    def _judge(self, host: bytes, origin: bytes) -> ForbiddenError | None:
        """Return why a request is refused, by its two headers; None where it is not."""
        name = host_name(host.decode("latin-1"))
        # HTTP/1.0 has no `Host`; no browser speaks it.
        if host and not (is_loopback_name(name) or self._is_known_host(name)):
            return _foreign_host()
        if origin and not self._is_known_origin(origin.decode("latin-1").lower(), name):
            return ForbiddenError(
                "This server answers pages of this machine only. To let pages of another origin call, its operator "
                "lists that in cors_origins, or has callers send an API key.",
                code="origin_not_allowed",
            )
        return None

    def _is_known_host(self, name: str) -> bool:
        return any(
            host in (name, ANY)
            or (host.startswith("*.") and len(name) >= len(host) and name.endswith(host[1:]))
            for host in self._hosts
        )

    def _is_known_origin(self, origin: str, host: str) -> bool:
        if ANY in self._origins or origin in self._origins:
            return True
        try:
            name = urlsplit(origin).hostname or ""
        except ValueError:
            return False
        return bool(name) and (is_loopback_name(name) or name == host)


@lru_cache(maxsize=64)
def is_loopback_name(name: str) -> bool:
    """Return whether a host name or address, in lower case and without brackets, can mean this machine only.

    No name server decides on these names, so no page can have them.
    """
    if name == "localhost" or name.endswith(".localhost") or name in CONTAINER_NAMES:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def host_name(authority: str) -> str:
    """Return the name or address in a `Host` header, in lower case, without port, brackets and the root's dot."""
    authority = authority.strip().lower()
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0].removesuffix(".")


def _foreign_host() -> ForbiddenError:
    return ForbiddenError(
        "This server answers to names of this machine only, such as localhost and 127.0.0.1. To have it answer to "
        "another name, its operator lists that in trusted_hosts, or has callers send an API key.",
        code="host_not_allowed",
    )
