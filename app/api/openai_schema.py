"""What the OpenAPI document says of the OpenAI dialect. Requests are parsed by hand; these models only describe."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field


class ErrorDetail(BaseModel):
    """OpenAI's error object; all four keys are always there."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Error body; `detail` and `message` repeat the message for other vendors' clients."""

    error: ErrorDetail
    detail: str
    message: str


class EmbeddingsRequest(BaseModel):
    """Body of `POST /v1/embeddings`: OpenAI's fields, then our extensions. Unknown fields are ignored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "all-MiniLM-L6-v2", "input": ["hello", "world"]},
                {"model": "all-MiniLM-L6-v2", "input": "hello", "dimensions": 128},
            ]
        }
    )

    input: str | list[str] | list[int] | list[list[int]] = Field(
        description="A text, texts, or token ids (one input) or arrays of token ids (several)."
    )
    model: str | None = Field(None, description="May be left out where one model is served.")
    dimensions: int | None = Field(
        None, ge=1, description="Keep so many leading values, then renormalise; default all."
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64 is little-endian float32; default float."
    )
    user: str | None = Field(None, description="Ignored.")
    normalize: bool | None = Field(None, description="Scale to unit length; default true.")
    truncate: bool | Literal["error", "start", "end"] | None = Field(
        None,
        description="Too-long inputs: refuse, or cut off the start or the end (true); default: a server setting.",
    )
    prompt: str | None = Field(None, description="Literal text to put before each input.")
    prompt_name: str | None = Field(None, description="One of the model's own prompts.")
    input_type: str | None = Field(
        None, description="query, document, …: the model's own prompt for that role, if it has one."
    )


class Embedding(BaseModel):
    """One vector."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens in the model's own vocabulary, special tokens included, after truncation."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """Vectors in input order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Dimensions(BaseModel):
    """Sizes a vector may be asked for in."""

    native: int
    range: tuple[int, int]
    trained: list[int] = Field(description="Sizes the model was trained for (Matryoshka).")


class Model(BaseModel):
    """A served model: OpenAI's four keys, then what a caller should know."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    aliases: list[str]
    max_model_len: int
    dimensions: Dimensions
    pooling: str
    normalized: bool
    prompts: list[str]
    space: str = Field(
        description="Fingerprint of the embedding space; compare before mixing vectors."
    )
    architecture: str
    precision: str
    provider: str
    license: str
    source: str


class ModelList(BaseModel):
    """All served models."""

    object: Literal["list"]
    data: list[Model]


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Errors of a route, by status."""
    return {status: {"model": ErrorBody} for status in statuses}


EMBEDDINGS_DOC: Final[dict[str, Any]] = {
    "summary": "Create embeddings",
    "response_model": EmbeddingsResponse,
    "responses": responses(400, 401, 404, 413, 429, 500, 503, 504),
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": EmbeddingsRequest.model_json_schema()}},
        }
    },
}
MODELS_DOC: Final[dict[str, Any]] = {
    "summary": "List models",
    "response_model": ModelList,
    "responses": responses(401, 503),
}
MODEL_DOC: Final[dict[str, Any]] = {
    "summary": "Describe a model",
    "response_model": Model,
    "responses": responses(401, 404, 503),
}
