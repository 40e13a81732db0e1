"""Settings of files and batch jobs."""

import os
from pathlib import Path

from pydantic import BaseModel, Field

from nestvec.config.field_types import UserPath


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path("~/.local/share")) / "nestvec"


class JobSettings(BaseModel):
    """Whether files and batch jobs are offered, where they lie, and how large they may be."""

    files_api: bool = Field(
        True,
        description="Serve /v1/files and /v1/batches; without them no text of a caller is ever written to disk.",
    )
    data_dir: UserPath = Field(
        default_factory=_default_data_dir,
        validate_default=True,
        description="Where uploaded files and batches are kept (default ~/.local/share/nestvec); one server a folder.",
    )
    max_file_bytes: int = Field(
        512 * 1024 * 1024, ge=1024, description="Largest upload to /v1/files."
    )
    max_stored_bytes: int = Field(
        20 * 1024 * 1024 * 1024, ge=1024, description="What the files of one key may take in all."
    )
    max_batch_bytes: int = Field(
        200 * 1024 * 1024, ge=1024, description="Largest input file of a batch."
    )
    max_batch_requests: int = Field(
        50_000, ge=1, description="Most requests, and most inputs over all of them, in a batch."
    )
