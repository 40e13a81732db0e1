"""Settings of files and batch jobs."""

import os
from pathlib import Path

from pydantic import BaseModel, Field, SecretStr

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
        20 * 1024 * 1024 * 1024,
        ge=1,
        description="What the files of one key may take in all, uploads under way and answers to come included.",
    )
    max_unfinished_batches: int = Field(
        100, ge=1, description="How many batches of one key may be unfinished at a time."
    )
    database_url: SecretStr = Field(
        SecretStr(""),
        description="PostgreSQL for the rows of files and batches, shared by several servers (postgresql+psycopg://"
        "USER:PASSWORD@HOST/DATABASE, extra `postgres`); empty: SQLite in data_dir, for one server.",
    )
    files_url: str = Field(
        "",
        description="Object store for the contents of files, shared by several servers (s3://BUCKET/PREFIX, gs://, "
        "az://, extra `objects`; keys by the environment variables of the service) or file:///PATH; empty: data_dir.",
    )
    batch_lease_s: float = Field(
        30.0,
        ge=1,
        description="How long a server that shares batches with others may be silent before they take over its part.",
    )
    max_batch_bytes: int = Field(
        200 * 1024 * 1024, ge=1024, description="Largest input file of a batch."
    )
    max_batch_requests: int = Field(
        50_000, ge=1, description="Most requests, and most inputs over all of them, in a batch."
    )
