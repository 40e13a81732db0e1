"""Settings of the logs."""

from typing import Literal

from pydantic import BaseModel, Field


class LogSettings(BaseModel):
    """What is logged, and in which form."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe event to log."
    )
    access_log_sample_ratio: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the quick answers without an error that get a line in the log; refused, failed and slow "
        "ones always do.",
    )
    slow_request_ms: int = Field(
        1000, ge=0, description="Answers that take so many milliseconds are slow."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, else JSON lines."
    )
