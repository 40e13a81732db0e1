"""vLLM's own routes in the OpenAPI document."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from nestvec.api.schemas.documented import operation
from nestvec.api.schemas.openai import EmbeddingsBody


class PoolingRequest(EmbeddingsBody):
    """Body of `/pooling`: that of `/v1/embeddings`, and the task."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "all-MiniLM-L6-v2", "input": ["hello"], "task": "token_embed"}]
        }
    )

    task: str | None = Field(
        None,
        description="embed, token_embed or classify; by default the task that the model is for.",
    )

    pool_factor: int | None = Field(
        None, ge=1, description="Merge similar token vectors, down to one in so many."
    )


class ScoreRequest(BaseModel):
    """Pairs of texts or pictures, under one of several pairs of names."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "all-MiniLM-L6-v2",
                    "queries": "what is a cat?",
                    "documents": ["a small animal", "a large ship"],
                }
            ]
        }
    )

    queries: str | dict[str, Any] | list[str | dict[str, Any]]
    documents: str | dict[str, Any] | list[str | dict[str, Any]]
    model: str | None = None
    truncate_prompt_tokens: int | None = Field(None, ge=-1)
    instruction: str | None = None


class ClassifyRequest(BaseModel):
    """Texts to classify."""

    input: str | list[str]
    model: str | None = None
    truncate_prompt_tokens: int | None = Field(None, ge=-1)


class Answer(BaseModel):
    """Results in input order."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[dict[str, Any]]
    usage: dict[str, int]


POOLING_DOC: Final = operation("Pool, vLLM's way", Answer, bodies={"vllm": PoolingRequest})
CLASSIFY_DOC: Final = operation("Classify", Answer, bodies={"vllm": ClassifyRequest})
SCORE_DOC: Final = operation("Score pairs", Answer, bodies={"vllm": ScoreRequest})
