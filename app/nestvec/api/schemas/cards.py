"""The route of model cards in the OpenAPI document."""

from typing import Final, Literal

from pydantic import BaseModel, Field

from nestvec.api.schemas.documented import ErrorBody, errors_of, operation


class CardObject(BaseModel):
    """A model that the server could serve."""

    object: Literal["card"]
    id: str = Field(description="What `nestvec serve --model` takes.")
    model: str
    aliases: list[str]
    description: str | None
    license: str | None = Field(description="SPDX id, or a `LicenseRef-`.")
    languages: list[str] = Field(description="BCP-47 tags; empty where only their number is known.")
    language_count: int | None
    parameters: int | None
    dimensions: int | None
    trained_dimensions: list[int] = Field(description="Smaller sizes that its authors trained.")
    trained_layers: list[int]
    max_tokens: int | None


class CardList(BaseModel):
    """Every model that has a card."""

    object: Literal["list"]
    data: list[CardObject]


CARDS_DOC: Final = operation(
    "List the models that have a card", CardList, errors=errors_of(ErrorBody, (401, 503))
)
