"""The operators' routes in the OpenAPI document."""

from typing import Final

from pydantic import BaseModel, Field

from nestvec.api.schemas.documented import ErrorBody, errors_of, operation


class NamedModel(BaseModel):
    """The name of a model."""

    model: str


class ModelStatus(BaseModel):
    """A model of the settings and its state, in memory or not."""

    model: str
    aliases: list[str]
    state: str = Field(description="ready, loading, unloaded, unloading or failed.")
    graph_bytes: int = Field(
        description="Bytes of its graph and weights; 0 until it was loaded first."
    )
    requests: int = Field(description="How many requests hold it now.")
    is_kept: bool = Field(description="Whether it is never unloaded to make room.")
    error: str | None = Field(description="Why it could not be loaded.")


class ModelStatusList(BaseModel):
    """All models of the settings."""

    models: list[ModelStatus]


LIST_DOC: Final = operation(
    "List models in memory", ModelStatusList, errors=errors_of(ErrorBody, (401, 503))
)
LOAD_DOC: Final = operation("Load a model", ModelStatus, bodies={"admin": NamedModel})
UNLOAD_DOC: Final = operation("Unload a model", ModelStatus, bodies={"admin": NamedModel})
