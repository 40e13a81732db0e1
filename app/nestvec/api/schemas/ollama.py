"""Ollama's routes in the OpenAPI document."""

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from nestvec.api.schemas.documented import StringError, errors_of, operation


class EmbedRequest(BaseModel):
    """A text, or several, to embed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "all-MiniLM-L6-v2", "input": ["hello", "world"]}]}
    )

    model: str | None = None
    input: str | list[str] | None = None
    truncate: bool | None = Field(None, description="Cut inputs that are too long; default true.")
    dimensions: int | None = Field(None, ge=0)
    options: dict[str, Any] | None = Field(
        None,
        description="`num_ctx` caps the tokens of each input; other options of Ollama are ignored.",
    )
    keep_alive: str | float | None = Field(None, description="Ignored.")


class EmbedResponse(BaseModel):
    """Vectors; durations are in nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None


class EmbeddingsRequest(BaseModel):
    """One text to embed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "all-MiniLM-L6-v2", "prompt": "hello"}]}
    )

    model: str | None = None
    prompt: str | None = None
    options: dict[str, Any] | None = None


class EmbeddingsResponse(BaseModel):
    """One vector, not scaled to unit length."""

    embedding: list[float]


class NameRequest(BaseModel):
    """The name of a model."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "all-MiniLM-L6-v2"}]})

    model: str


class Listed(BaseModel):
    """A list of models."""

    models: list[dict[str, Any]]


class Shown(BaseModel):
    """A description of a model."""

    details: dict[str, Any]
    model_info: dict[str, Any]
    capabilities: list[str]
    license: str
    modified_at: str


class Status(BaseModel):
    """The outcome of a pull."""

    status: str


class Version(BaseModel):
    """The version of Ollama's API."""

    version: str


def _ollama(
    summary: str,
    answer: type[BaseModel],
    body: type[BaseModel] | None = None,
) -> dict[str, Any]:
    bodies = {"ollama": body} if body else None
    return operation(summary, answer, bodies=bodies, errors=errors_of(StringError))


EMBED_DOC: Final = _ollama("Embed", EmbedResponse, EmbedRequest)
EMBEDDINGS_DOC: Final = _ollama(
    "Embed one text, the old way", EmbeddingsResponse, EmbeddingsRequest
)
TAGS_DOC: Final = _ollama("List models", Listed)
PS_DOC: Final = _ollama("List loaded models", Listed)
SHOW_DOC: Final = _ollama("Describe a model", Shown, NameRequest)
PULL_DOC: Final = _ollama("Ask whether a model is there", Status, NameRequest)
VERSION_DOC: Final = _ollama("Version of the API", Version)
