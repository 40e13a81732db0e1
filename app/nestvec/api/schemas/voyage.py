"""The Voyage dialect in the OpenAPI document."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from nestvec.api.schemas.documented import operation

DtypeWord = Literal["float", "float16", "int8", "uint8", "binary", "ubinary"]


class VoyageRequest(BaseModel):
    """Body in Voyage's dialect, known by `truncation` or `output_dimension`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "all-MiniLM-L6-v2",
                    "input": ["hello", "world"],
                    "input_type": "document",
                    "truncation": True,
                    "output_dimension": 128,
                    "output_dtype": "int8",
                }
            ]
        }
    )

    input: str | list[str]
    truncation: bool | None = Field(description="Cut inputs that are too long; default true.")
    model: str | None = None
    input_type: Literal["query", "document"] | None = None
    output_dimension: int | None = Field(None, ge=1)
    output_dtype: DtypeWord | None = None
    encoding_format: Literal["base64", "float"] | None = Field(
        None, description="`base64` holds values of `output_dtype`."
    )


class VoyageEmbedding(BaseModel):
    """One vector."""

    object: Literal["embedding"]
    embedding: list[float] | list[int] | str
    index: int


class VoyageUsage(BaseModel):
    """Tokens, counted in the model's own vocabulary."""

    total_tokens: int


class VoyageResponse(BaseModel):
    """Vectors in input order."""

    object: Literal["list"]
    data: list[VoyageEmbedding]
    model: str
    usage: VoyageUsage


class MultimodalPart(BaseModel):
    """A text, or a picture."""

    type: Literal["text", "image_base64", "image_url"]
    text: str | None = None
    image_base64: str | None = Field(None, description="A data URL, or base64.")
    image_url: str | None = Field(None, description="A data URL; others are not fetched.")


class MultimodalInput(BaseModel):
    """What one vector is made of: texts, a line each, a picture, or both."""

    content: list[MultimodalPart]


class MultimodalRequest(BaseModel):
    """Texts and pictures in Voyage's form."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "all-MiniLM-L6-v2",
                    "inputs": [{"content": [{"type": "text", "text": "a cat"}]}],
                    "input_type": "document",
                }
            ]
        }
    )

    inputs: list[MultimodalInput]
    model: str | None = None
    input_type: Literal["query", "document"] | None = None
    truncation: bool | None = Field(None, description="Cut texts that are too long; default true.")
    output_dimension: int | None = Field(None, ge=1)
    output_dtype: DtypeWord | None = None
    output_encoding: Literal["base64", "float"] | None = Field(
        None, description="`base64` holds values of `output_dtype`."
    )
    encoding_format: Literal["base64", "float"] | None = Field(
        None, description="Another name for `output_encoding`."
    )


class MultimodalUsage(BaseModel):
    """What was run. Tokens of a picture are those that the model makes of it."""

    text_tokens: int
    image_pixels: int
    video_pixels: int
    total_tokens: int


class MultimodalResponse(BaseModel):
    """Vectors in input order."""

    object: Literal["list"]
    data: list[VoyageEmbedding]
    model: str
    usage: MultimodalUsage


MULTIMODAL_DOC: Final = operation(
    "Embed texts and pictures",
    MultimodalResponse,
    bodies={"voyage": MultimodalRequest},
)


class ContextualizedRequest(BaseModel):
    """Documents in Voyage's form, each a list of its chunks in order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "all-MiniLM-L6-v2",
                    "inputs": [["Chapter one.", "It was cold."], ["Another document."]],
                    "input_type": "document",
                }
            ]
        }
    )

    inputs: list[list[str]]
    model: str | None = None
    input_type: Literal["query", "document"] | None = None
    output_dimension: int | None = Field(None, ge=1)
    output_dtype: DtypeWord | None = None
    encoding_format: Literal["base64", "float"] | None = None


class ContextualizedResponse(BaseModel):
    """A list for each document, with a vector for each of its chunks."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    model: str
    usage: dict[str, int]
