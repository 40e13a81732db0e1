"""The Perplexity dialect in the OpenAPI document."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PerplexityDocumentsRequest(BaseModel):
    """Documents in Perplexity's form, known by `input`; each a list of its chunks in order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "all-MiniLM-L6-v2",
                    "input": [["Chapter one.", "It was cold."], ["Another document."]],
                    "encoding_format": "base64_int8",
                }
            ]
        }
    )

    input: list[list[str]]
    model: str | None = None
    dimensions: int | None = Field(None, ge=1)
    encoding_format: Literal["base64_int8", "base64_binary"] | None = Field(
        None,
        description="Default `base64_int8`; `base64_binary` holds signs, the first of each byte in its lowest bit.",
    )
