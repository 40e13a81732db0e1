"""Files and batches in the OpenAPI document."""

from typing import Any, Final, Literal

from fastapi import Response
from pydantic import BaseModel, Field

from nestvec.api.schemas.documented import ErrorBody, errors_of, operation


class File(BaseModel):
    """A file that was uploaded or made by a batch."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"]
    status_details: str | None


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"]
    data: list[File]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    """A file that was deleted."""

    id: str
    object: Literal["file"]
    deleted: bool


class OutputExpiry(BaseModel):
    """How long output files are kept, from their creation."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class CreateBatch(BaseModel):
    """Body of `POST /v1/batches`."""

    input_file_id: str
    endpoint: Literal["/v1/embeddings"]
    completion_window: Literal["24h"] | None = "24h"
    metadata: dict[str, str] | None = None
    output_expires_after: OutputExpiry | None = None


class BatchProblem(BaseModel):
    """A fault of an input file; lines count from 1."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchProblems(BaseModel):
    """The first hundred faults of an input file."""

    object: Literal["list"]
    data: list[BatchProblem]


class RequestCounts(BaseModel):
    """Counts of a batch's requests so far; the total is known once the input has been checked."""

    total: int
    completed: int
    failed: int


class BatchObject(BaseModel):
    """A batch of requests and its state."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None
    errors: BatchProblems | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    expires_at: int
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: dict[str, Any]
    metadata: dict[str, str] | None


class BatchList(BaseModel):
    """A page of batches."""

    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


UPLOAD_FORM: Final = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": ["batch", "user_data"]},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
    },
}
UPLOAD_DOC: Final = operation(
    "Upload a file",
    File,
    content={"multipart/form-data": {"schema": UPLOAD_FORM}},
    errors=errors_of(ErrorBody, (400, 401, 413, 500, 503)),
)
FILES_DOC: Final = operation(
    "List files", FileList, errors=errors_of(ErrorBody, (400, 401, 404, 500, 503))
)
FILE_DOC: Final = operation(
    "Describe a file", File, errors=errors_of(ErrorBody, (401, 404, 500, 503))
)
DELETE_DOC: Final = operation(
    "Delete a file", Deleted, errors=errors_of(ErrorBody, (400, 401, 404, 500, 503))
)
CONTENT_DOC: Final[dict[str, Any]] = {
    **operation("A file's bytes", None, errors=errors_of(ErrorBody, (401, 404, 416, 500, 503))),
    "response_class": Response,
}
CREATE_BATCH_DOC: Final = operation(
    "Create a batch of embeddings requests",
    BatchObject,
    bodies={"openai": CreateBatch},
    errors=errors_of(ErrorBody, (400, 401, 404, 413, 500, 503)),
)
BATCHES_DOC: Final = operation(
    "List batches", BatchList, errors=errors_of(ErrorBody, (400, 401, 404, 500, 503))
)
BATCH_DOC: Final = operation(
    "Describe or cancel a batch", BatchObject, errors=errors_of(ErrorBody, (401, 404, 500, 503))
)
