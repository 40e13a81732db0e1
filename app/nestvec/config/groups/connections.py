"""Settings that bound connections: how many, and how slow they may be."""

from pydantic import BaseModel, Field


class ConnectionSettings(BaseModel):
    """How many connections may be open, and how slow they may be."""

    max_connections: int = Field(
        0,
        ge=0,
        description="Most open connections of each HTTP process, no more than open files allow; further ones get 503, "
        "but for questions whether the server is alive. 0: as memory allows, one for each 2 MiB, at most 2,048.",
    )
    max_header_bytes: int = Field(
        64 * 1024, ge=1024, description="Largest request line and headers; beyond it 431."
    )
    header_timeout_s: float = Field(
        10.0,
        gt=0,
        description="How long a caller may take over the headers of a request, and to begin on a new connection.",
    )
    body_timeout_s: float = Field(
        60.0,
        gt=0,
        description="How long a caller may take over a body; each 16 KiB of it add a second.",
    )
    min_bytes_per_s: int = Field(
        1024,
        ge=0,
        description="Callers that send a body, or read an answer, more slowly over ten seconds are hung up on.",
    )
