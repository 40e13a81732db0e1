"""Settings of the watch over what the server is asked for."""

from typing import Literal

from pydantic import BaseModel, Field

from nestvec.config.field_types import UserPath


class DriftSettings(BaseModel):
    """Whether vectors that are given are compared with those of texts of reference."""

    drift_reference: UserPath | None = Field(
        None,
        description="File of at least 100 texts, such as came in a good month: a sample of vectors that are given is "
        "compared with theirs (`nestvec_drift_p`).",
    )
    drift_role: Literal["default", "query", "passage"] = Field(
        "default",
        description="Which vectors are compared: those behind the model's prompt for queries or passages, or behind "
        "that of calls which name none.",
    )
    drift_interval_s: int = Field(
        900, ge=60, le=86_400, description="Time from one comparison to the next."
    )
