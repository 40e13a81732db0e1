"""What the OpenAPI document says of files and batches. Requests are parsed by hand; these models only describe."""

from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from app.api.openai_schema import responses


class File(BaseModel):
    """A file."""

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
    """What is wrong with an input file; lines count from 1."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchProblems(BaseModel):
    """The first hundred of them."""

    object: Literal["list"]
    data: list[BatchProblem]


class RequestCounts(BaseModel):
    """Live; the total is known once the input has been checked."""

    total: int
    completed: int
    failed: int


class BatchObject(BaseModel):
    """A batch."""

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
UPLOAD_DOC: Final[dict[str, Any]] = {
    "summary": "Upload a file",
    "response_model": File,
    "responses": responses(400, 401, 413, 500),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": UPLOAD_FORM}},
        }
    },
}
FILES_DOC: Final[dict[str, Any]] = {
    "summary": "List files",
    "response_model": FileList,
    "responses": responses(400, 401, 404, 500),
}
FILE_DOC: Final[dict[str, Any]] = {
    "summary": "Describe a file",
    "response_model": File,
    "responses": responses(401, 404, 500),
}
CREATE_BATCH_DOC: Final[dict[str, Any]] = {
    "summary": "Create a batch of embeddings requests",
    "response_model": BatchObject,
    "responses": responses(400, 401, 404, 413, 500),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": CreateBatch.model_json_schema()}},
        }
    },
}
BATCHES_DOC: Final[dict[str, Any]] = {
    "summary": "List batches",
    "response_model": BatchList,
    "responses": responses(400, 401, 404, 500),
}
BATCH_DOC: Final[dict[str, Any]] = {
    "summary": "Describe or cancel a batch",
    "response_model": BatchObject,
    "responses": responses(401, 404, 500),
}
