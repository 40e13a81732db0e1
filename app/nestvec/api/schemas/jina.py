"""The Jina dialect in the OpenAPI document."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

TypeWord = Literal["float", "base64", "float16", "int8", "uint8", "binary", "ubinary"]


class JinaRequest(BaseModel):
    """Body in Jina's dialect, known by `embedding_type`, `normalized`, `return_multivector` or objects as items."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "all-MiniLM-L6-v2",
                    "input": [{"text": "hello"}, {"text": "world"}],
                    "task": "retrieval.passage",
                    "embedding_type": "binary",
                }
            ]
        }
    )

    input: str | list[str] | list[dict[str, Any]] = Field(
        description="Texts, plain or as objects with `text`; objects with `image`, a data URL or base64, for models of "
        "pictures."
    )
    embedding_type: TypeWord | list[TypeWord] | None
    model: str | None = None
    task: str | None = Field(None, description="retrieval.query, retrieval.passage, …")
    dimensions: int | None = Field(None, ge=1)
    late_chunking: bool | None = None
    truncate: bool | None = Field(None, description="Cut inputs that are too long; default false.")
    normalized: bool | None = None
    return_multivector: bool | None = Field(None, description="Return one vector for each token.")
    return_offsets: bool | None = Field(
        None, description="Beside `return_multivector`: where each token lies in its text."
    )


class JinaResponse(BaseModel):
    """Vectors in input order; `embedding` may be an object by type, and `embeddings` holds vectors of tokens."""

    object: Literal["list"]
    model: str
    data: list[dict[str, Any]]
    usage: dict[str, int]
