"""The Cohere dialect in the OpenAPI document."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from nestvec.api.schemas.documented import operation

LEXICAL_WEIGHT: Final = Field(
    None,
    ge=0,
    le=1,
    description="Share of the terms' products (BM25, or a sparse head's) beside the cosine; default 0.",
)
FUSION: Final = Field(
    None,
    description="How cosines and terms make one score: their weighted sum (default), or reciprocal ranks, where "
    "`lexical_weight` is 0.5 unless it is given.",
)
TypeWord = Literal["float", "int8", "uint8", "binary", "ubinary", "base64", "float16"]


class EmbedRequest(BaseModel):
    """What is embedded, in exactly one of `texts`, `images` and `inputs`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "all-MiniLM-L6-v2",
                    "texts": ["hello", "world"],
                    "input_type": "search_document",
                    "embedding_types": ["float", "int8"],
                }
            ]
        }
    )

    texts: list[str] | None = Field(None, description="At most 96 texts.")
    images: list[str] | None = Field(None, description="Data URLs, for models of pictures.")
    inputs: list[dict[str, Any]] | None = Field(
        None,
        description="Each with `content`: texts, a line each, a picture (`image_url`), or both.",
    )
    model: str | None = None
    input_type: str | None = Field(None, description="search_query, search_document, …")
    embedding_types: list[TypeWord] | None = None
    output_dimension: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    truncate: Literal["NONE", "START", "END"] | None = None


class EmbedResponse(BaseModel):
    """Vectors by type, or as a bare list."""

    id: str
    embeddings: dict[str, Any] | list[list[float]]
    texts: list[str]
    images: list[dict[str, Any]] | None = Field(
        None, description="Width, height, format and bit depth of each picture."
    )
    meta: dict[str, Any]
    response_type: Literal["embeddings_by_type", "embeddings_floats"]


class RerankRequest(BaseModel):
    """Body of `/rerank` in the dialects of Cohere, Jina, vLLM and infinity."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "all-MiniLM-L6-v2",
                    "query": "what is a cat?",
                    "documents": ["a small animal", "a large ship"],
                    "top_n": 1,
                },
                {
                    "model": "clip-vit-base-patch32",
                    "query": "a small animal",
                    "documents": [{"text": "a cat"}, {"image": "data:image/png;base64,…"}],
                },
            ]
        }
    )

    query: str | dict[str, Any] = Field(
        description="A text, or an object with `text` or `image` (a data URL or base64)."
    )
    documents: list[str | dict[str, Any]]
    model: str | None = None
    top_n: int | None = Field(None, ge=0)
    return_documents: bool | None = None
    max_tokens_per_doc: int | None = Field(None, ge=1)
    instruction: str | None = Field(
        None,
        description="What is wanted of the documents, for models whose template has a place for it.",
    )
    lexical_weight: float | None = LEXICAL_WEIGHT
    fusion: Literal["weighted", "rrf"] | None = FUSION


class VoyageRerankRequest(BaseModel):
    """Body of `/rerank` in Voyage's dialect, known by `top_k` or `truncation`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "all-MiniLM-L6-v2",
                    "query": "what is a cat?",
                    "documents": ["a small animal", "a large ship"],
                    "top_k": 1,
                    "truncation": True,
                }
            ]
        }
    )

    query: str | dict[str, Any]
    documents: list[str | dict[str, Any]]
    truncation: bool | None
    model: str | None = None
    top_k: int | None = Field(None, ge=0)
    return_documents: bool | None = None
    instruction: str | None = Field(
        None,
        description="What is wanted of the documents, for models whose template has a place for it.",
    )
    lexical_weight: float | None = LEXICAL_WEIGHT
    fusion: Literal["weighted", "rrf"] | None = FUSION


class RerankResponse(BaseModel):
    """Documents, the best first, in the same list under two names for two families of clients."""

    id: str
    object: Literal["list"]
    model: str
    results: list[dict[str, Any]]
    data: list[dict[str, Any]]
    usage: dict[str, int]
    meta: dict[str, Any]


EMBED_V2_DOC: Final = operation(
    "Embed, Cohere version 2", EmbedResponse, bodies={"cohere": EmbedRequest}
)
EMBED_V1_DOC: Final = operation(
    "Embed, Cohere version 1", EmbedResponse, bodies={"cohere": EmbedRequest}
)
