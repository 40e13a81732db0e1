"""Settings of the logs."""

from typing import Literal

from pydantic import BaseModel, Field


class LogSettings(BaseModel):
    """What is logged, and in which form."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe event to log."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, else JSON lines."
    )
