"""Settings of one model among several, and of aliases that stand for more than a model: tables of the TOML file."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import NoDecode

from nestvec.config.field_types import parse_table
from nestvec.config.text_settings import TextSettings

PrecisionName = Literal["auto", "fp32", "fp16", "int8", "int8-accurate", "bf16"]


class AliasSettings(BaseModel):
    """A further name of a model, and what a request under that name gets. A row of `aliases`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, description="Which model; the first by default.")
    prompt_name: str | None = Field(None, description="One of the model's prompts.")
    dimensions: int | None = Field(None, ge=1, description="Dimensions where none are asked for.")
    layers: int | None = Field(None, ge=1, description="Layers that run, where none are asked for.")
    map: str | None = Field(None, description="The map of vectors, where none is asked for.")
    output_dtype: Literal["float16", "int8", "uint8", "binary", "ubinary"] | None = Field(
        None, description="The dtype where a request names none and its dialect has a word for it."
    )
    text: TextSettings | None = Field(None, description="As `text`; the model's by default.")


class ModelSettings(BaseModel):
    """A further model; what it leaves out is as for the first model. A row of `models`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, description="Card name, folder, or Hub id.")
    aliases: list[str] = Field(default_factory=list, description="Further names.")
    load: Literal["start", "first_use"] = Field(
        "start", description="When it is brought into memory."
    )
    keep: bool = Field(False, description="Never unload it to make room.")
    adapters: dict[str, Path] = Field(
        default_factory=dict, description="Folders of LoRA adapters by the task that asks for each."
    )
    picture_model: str = Field("", description="As `picture_model`; none by default.")
    text: TextSettings | None = Field(None, description="As `text`; the first model's by default.")
    revision: str = Field("", description="Hub commit, tag or branch to pin.")
    precision: PrecisionName | None = None
    max_input_tokens: int | None = Field(None, ge=3)
    picture_patches: int | None = Field(None, ge=16, le=4096)
    max_batch_tokens: int | None = Field(None, ge=0, le=1_000_000)
    worker_threads: int | None = Field(None, ge=0, le=1024)


def parse_models(value: object) -> object:
    """Read further models: a table, a table as JSON, or just sources, each served under its own name.

    Raises:
        ValueError: The text is not JSON.
    """
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return {source: {"model": source} for source in value}
    return parse_table(value)


AliasTable = Annotated[dict[str, AliasSettings], NoDecode, BeforeValidator(parse_table)]
AdapterTable = Annotated[dict[str, Path], NoDecode, BeforeValidator(parse_table)]
ModelTable = Annotated[dict[str, ModelSettings], NoDecode, BeforeValidator(parse_models)]
