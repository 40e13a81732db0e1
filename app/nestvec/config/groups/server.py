"""Settings of the HTTP server: addresses, proxies, browsers, operators, and its end."""

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, Field

from nestvec.config.field_types import TextList

DEFAULT_PORT: Final = 8080


def _ignore_kubernetes(value: object) -> object:
    """Replace what a Kubernetes Service named "nestvec" injects, NESTVEC_PORT=tcp://…, by the default."""
    return DEFAULT_PORT if isinstance(value, str) and value.startswith("tcp://") else value


class ServerSettings(BaseModel):
    """Where the server listens, whom it trusts, and how it stops."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: Annotated[int, BeforeValidator(_ignore_kubernetes)] = Field(
        DEFAULT_PORT, ge=0, le=65535, description="Port to listen on; 0 takes a free one."
    )
    trusted_hosts: TextList = Field(
        default_factory=list,
        description="Host names that requests may be for, comma-separated, `*.example.org` too; none: any.",
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
        description="Origins whose pages may call from a browser, comma-separated; `*`: any; none: no page.",
    )
    operations_port: int = Field(
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
    drain_grace_s: float = Field(
        1.0,
        ge=0,
        le=300,
        description="After SIGTERM, serve so long with readiness off before closing the port.",
    )
    drain_timeout_s: float = Field(
        30.0, ge=0, le=3600, description="Then wait so long for requests in flight."
    )
