"""The Gemini dialect in the OpenAPI document."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from nestvec.api.schemas.documented import errors_of, operation

TaskType = Literal[
    "TASK_TYPE_UNSPECIFIED",
    "RETRIEVAL_QUERY",
    "RETRIEVAL_DOCUMENT",
    "SEMANTIC_SIMILARITY",
    "CLASSIFICATION",
    "CLUSTERING",
    "QUESTION_ANSWERING",
    "FACT_VERIFICATION",
    "CODE_RETRIEVAL_QUERY",
]


class GeminiBlob(BaseModel):
    """A file that stands in the request itself."""

    mimeType: str | None = None  # noqa: N815 - Google's name
    data: str = Field(description="Base64.")


class GeminiPart(BaseModel):
    """A part of a content: a text, or a picture for models that take them."""

    text: str | None = None
    inlineData: GeminiBlob | None = None  # noqa: N815 - Google's name


class GeminiContent(BaseModel):
    """What becomes one vector: texts, which are joined, a line each, a picture, or both."""

    parts: list[GeminiPart]
    role: str | None = None


class EmbedContentRequest(BaseModel):
    """A content to embed, and what it is for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "content": {"parts": [{"text": "hello"}]},
                    "taskType": "RETRIEVAL_QUERY",
                    "outputDimensionality": 128,
                }
            ]
        }
    )

    content: GeminiContent
    model: str | None = Field(None, description="`models/MODEL`, as the path says it.")
    taskType: TaskType | None = None  # noqa: N815 - Google's name
    title: str | None = Field(None, description="Title of a document.")
    outputDimensionality: int | None = Field(None, ge=1)  # noqa: N815 - Google's name


class EmbedContentBody(EmbedContentRequest):
    """Body of `:embedContent`."""

    autoTruncate: bool | None = Field(  # noqa: N815 - Google's name
        None, description="Cut what is too long; default true."
    )


class BatchEmbedContentsRequest(BaseModel):
    """Body of `:batchEmbedContents`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"requests": [{"content": {"parts": [{"text": "hello"}]}}]}],
        }
    )

    requests: list[EmbedContentRequest]
    model: str | None = Field(None, description="`models/MODEL`, as the path says it.")
    autoTruncate: bool | None = Field(  # noqa: N815 - Google's name
        None, description="Cut what is too long; default true."
    )


class ContentVector(BaseModel):
    """One vector."""

    values: list[float]


class GeminiUsage(BaseModel):
    """Tokens, counted in the model's own vocabulary."""

    promptTokenCount: int  # noqa: N815 - Google's name
    totalTokenCount: int  # noqa: N815 - Google's name


class EmbedContentResponse(BaseModel):
    """Answer of `:embedContent`."""

    embedding: ContentVector
    usageMetadata: GeminiUsage  # noqa: N815 - Google's name


class BatchEmbedContentsResponse(BaseModel):
    """Answer of `:batchEmbedContents`, in the order of the requests."""

    embeddings: list[ContentVector]
    usageMetadata: GeminiUsage  # noqa: N815 - Google's name


class GeminiModel(BaseModel):
    """A model as Google's clients list it."""

    name: str
    displayName: str  # noqa: N815 - Google's name
    version: str
    inputTokenLimit: int  # noqa: N815 - Google's name
    outputTokenLimit: int  # noqa: N815 - Google's name
    supportedGenerationMethods: list[str]  # noqa: N815 - Google's name


class GeminiModels(BaseModel):
    """Every model that embeds."""

    models: list[GeminiModel]


class GeminiFault(BaseModel):
    """Google's error object."""

    code: int
    message: str
    status: str
    details: list[dict[str, Any]]


class GeminiError(BaseModel):
    """Error body of Google's APIs (google.rpc.Status)."""

    error: GeminiFault


EMBED_DOC: Final = operation(
    "Embed a content in Gemini's form",
    EmbedContentResponse,
    bodies={"gemini": EmbedContentBody},
    errors=errors_of(GeminiError),
)
BATCH_EMBED_DOC: Final = operation(
    "Embed contents in Gemini's form",
    BatchEmbedContentsResponse,
    bodies={"gemini": BatchEmbedContentsRequest},
    errors=errors_of(GeminiError),
)
MODELS_DOC: Final = operation(
    "List models in Gemini's form", GeminiModels, errors=errors_of(GeminiError, (401, 429, 503))
)
MODEL_DOC: Final = operation(
    "Describe a model in Gemini's form",
    GeminiModel,
    errors=errors_of(GeminiError, (401, 404, 429, 503)),
)
