"""The tables of the store, and their rows as objects and back."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final

import sqlalchemy as sa

from nestvec.jobs.types import BatchJob, Problem, Purpose, Status, StoredFile

TableRow = Mapping[Any, Any] | sa.RowMapping
JSON_COLUMNS: Final = ("metadata", "times", "problems")

# States of chunks.
WAITING: Final = "waiting"
HELD: Final = "held"
DONE: Final = "done"

schema = sa.MetaData()
files = sa.Table(
    "files",
    schema,
    # In order of creation.
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.String(64), unique=True, nullable=False),
    sa.Column("owner", sa.String(64), nullable=False, index=True),
    sa.Column("purpose", sa.String(32), nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_s", sa.BigInteger, nullable=False),
    sa.Column("expires_s", sa.BigInteger, index=True),
)
batches = sa.Table(
    "batches",
    schema,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("id", sa.String(64), unique=True, nullable=False),
    sa.Column("owner", sa.String(64), nullable=False, index=True),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("input_file_id", sa.String(64), nullable=False),
    sa.Column("completion_window", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False, index=True),
    sa.Column("created_s", sa.BigInteger, nullable=False),
    sa.Column("expires_s", sa.BigInteger, nullable=False),
    sa.Column("metadata", sa.Text),
    sa.Column("output_expires_s", sa.BigInteger),
    sa.Column("times", sa.Text, nullable=False),
    sa.Column("problems", sa.Text, nullable=False),
    sa.Column("output_file_id", sa.String(64)),
    sa.Column("error_file_id", sa.String(64)),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("completed", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("model", sa.Text),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("lines_done", sa.BigInteger, nullable=False),
    sa.Column("output_bytes", sa.BigInteger, nullable=False),
    sa.Column("error_bytes", sa.BigInteger, nullable=False),
    sa.Column("outcome", sa.String(16)),
    # How many chunks the input was cut into; None until it has been.
    sa.Column("chunks", sa.Integer),
    # Which runner checks, cuts or finalizes the batch, and until when it may be taken for alive.
    sa.Column("holder", sa.String(64)),
    sa.Column("until_s", sa.Float(53)),
    sa.Column("reserved_bytes", sa.BigInteger, nullable=False, server_default="0"),
)
# Uploads under way, by the room that is kept for them.
uploads = sa.Table(
    "uploads",
    schema,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False, index=True),
    sa.Column("reserved_bytes", sa.BigInteger, nullable=False),
    sa.Column("until_s", sa.BigInteger, nullable=False),
)
chunks = sa.Table(
    "chunks",
    schema,
    sa.Column("batch_id", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("first_request", sa.BigInteger, nullable=False),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("offset_bytes", sa.BigInteger, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("holder", sa.String(64)),
    sa.Column("until_s", sa.Float(53)),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("output_part", sa.Text),
    sa.Column("output_bytes", sa.BigInteger, nullable=False),
    sa.Column("error_part", sa.Text),
    sa.Column("error_bytes", sa.BigInteger, nullable=False),
    sa.Column("completed", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    # Why its lines never ran: "cancelled" or "expired".
    sa.Column("refused", sa.String(16)),
    sa.Index("ix_chunks_batch_id_state", "batch_id", "state"),
)
owners = sa.Table(
    "owners",
    schema,
    sa.Column("owner", sa.String(64), primary_key=True),
    sa.Column("served_tokens", sa.Float(53), nullable=False),
)


def file_of(row: TableRow) -> StoredFile:
    """Read a file from a row."""
    values = {field.name: row[field.name] for field in fields(StoredFile)}
    return StoredFile(**{**values, "purpose": Purpose(values["purpose"])})


def batch_of(row: TableRow) -> BatchJob:
    """Read a batch from a row."""
    values = {field.name: row[field.name] for field in fields(BatchJob)}
    for name in JSON_COLUMNS:
        values[name] = json.loads(values[name]) if values[name] is not None else None
    values["problems"] = tuple(Problem(**problem) for problem in values["problems"])
    values["status"] = Status(values["status"])
    values["outcome"] = Status(values["outcome"]) if values["outcome"] else None
    return BatchJob(**values)


def columns_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put values into the form of the tables' columns."""
    return {
        name: json.dumps(value, default=asdict)
        if name in JSON_COLUMNS and value is not None
        else value
        for name, value in values.items()
    }
