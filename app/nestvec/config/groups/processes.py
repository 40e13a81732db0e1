"""Settings of the processes of one server."""

from pydantic import BaseModel, Field


class ProcessSettings(BaseModel):
    """How many HTTP processes there are, and when an engine counts as hanging."""

    http_processes: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes for HTTP, beside one for the engine that is started again when it dies; 0: one for all.",
    )
    batch_timeout_s: float = Field(
        120.0,
        gt=0,
        description="A micro-batch that takes longer than this, and ten times as long as predicted, hangs: readiness "
        "goes off, and the engine's process is ended and started again (by the orchestrator, if http_processes is 0).",
    )
    http_hang_timeout_s: float = Field(
        10.0,
        ge=1,
        le=600,
        description="With http_processes: an HTTP process whose event loop stands still for so long is killed and "
        "started again. Those that wait for it are cut off; the other processes serve on.",
    )
