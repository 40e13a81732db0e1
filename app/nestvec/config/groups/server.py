"""Settings of the HTTP server: addresses, proxies, browsers, operators, and its end."""

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, Field

from nestvec.config.field_types import TextList

DEFAULT_PORT: Final = 8080
# Protocols of the ports of a Kubernetes Service.
KUBERNETES_SCHEMES: Final = ("tcp://", "udp://", "sctp://")


def is_kubernetes_port(value: object) -> bool:
    """Return whether a variable's value is what Kubernetes injects for a Service: NESTVEC_PORT=tcp://10.0.0.1:8080."""
    return isinstance(value, str) and value.lower().startswith(KUBERNETES_SCHEMES)


def _ignore_kubernetes(default: int) -> BeforeValidator:
    """Make a validator that replaces what a Kubernetes Service injects by the default."""
    return BeforeValidator(lambda value: default if is_kubernetes_port(value) else value)


class ServerSettings(BaseModel):
    """Where the server listens, whom it trusts, and how it stops."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, _ignore_kubernetes(DEFAULT_PORT)] = Field(
        DEFAULT_PORT, ge=0, le=65535, description="Port to listen on; 0 takes a free one."
    )
    trusted_hosts: TextList = Field(
        default_factory=list,
        description="Host names that requests may be for, comma-separated, `*.example.org` too; none: any, or names of "
        "this machine only where `host` is a loopback address and no key is set.",
    )
    trusted_proxies: TextList = Field(
        default_factory=list,
        description="Addresses and networks of proxies whose X-Forwarded-For and -Proto are believed, comma-separated.",
    )
    root_path: str = Field(
        "",
        description="Path under which a proxy serves us, if it takes that off before it passes requests on.",
    )
    cors_origins: TextList = Field(
        default_factory=list,
        description="Origins whose pages may call from a browser, comma-separated; `*`: any; none: no page of another "
        "origin.",
    )
    operations_port: Annotated[int, _ignore_kubernetes(0)] = Field(
        0,
        ge=0,
        le=65535,
        description="A port of its own for /metrics and /admin, which are then not on the common one; 0: none.",
    )
    operations_host: str = Field(
        "", description="Address of that port, if it is another than `host`."
    )
    protect_operations: bool = Field(
        False, description="Ask for a key on /metrics too, and switch /docs off."
    )
    console: bool = Field(
        True, description="Serve the console, a page over the public API, at /console."
    )
    drain_grace_s: float = Field(
        1.0,
        ge=0,
        le=300,
        description="After SIGTERM, serve so long with readiness off before closing the port.",
    )
    drain_timeout_s: float = Field(
        30.0, ge=0, le=3600, description="Then wait so long for requests in flight."
    )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the common port."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")
