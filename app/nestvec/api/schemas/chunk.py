"""Nestvec's own route for chunks in the OpenAPI document."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from nestvec.api.schemas.documented import operation
from nestvec.api.schemas.openai import Usage


class ChunkRequest(BaseModel):
    """Documents, and how each is cut."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"input": "One sentence. Another one.", "splitter": "sentences"},
                {"input": ["def f():\n    pass\n"], "splitter": "code", "chunk_tokens": 128},
            ]
        }
    )

    input: str | list[str] = Field(description="The documents.")
    model: str | None = Field(
        None, description="Whose tokens count; may be left out where one model is served."
    )
    splitter: Literal["sentences", "tokens", "markdown", "code", "semantic"] | None = Field(
        None, description="Default: `sentences`. `semantic` embeds the sentences first."
    )
    chunk_tokens: int | None = Field(None, ge=4, description="Most tokens of a chunk.")
    overlap_tokens: int | None = Field(
        None, ge=0, description="With `tokens`: shared with the chunk before, at most half of it."
    )
    language: str | None = Field(None, description="ISO code of the language of sentences.")


class FoundChunk(BaseModel):
    """A chunk by its place: `text[start:end]` in characters (Unicode code points)."""

    object: Literal["chunk"]
    index: int
    document: int = Field(description="Index of its document.")
    start: int
    end: int
    tokens: int = Field(description="Number of tokens that start in it.")


class ChunkResponse(BaseModel):
    """The chunks of all documents, in their order; those of a document, joined, are its text."""

    object: Literal["list"]
    model: str
    data: list[FoundChunk]
    usage: Usage


CHUNK_DOC: Final = operation("Cut documents", ChunkResponse, bodies={"nestvec": ChunkRequest})
