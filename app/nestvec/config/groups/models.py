"""Settings of the models: which are served, under which names, and where they come from."""

import os
from pathlib import Path

from pydantic import BaseModel, Field

from nestvec.config.field_types import TextList, UserPath
from nestvec.config.model_settings import AdapterTable, AliasTable, ModelTable
from nestvec.config.recipe_settings import RecipeTable
from nestvec.config.text_settings import TextSettings, TextTable


def _default_cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache")) / "nestvec"


class ServedModelSettings(BaseModel):
    """Which models are served, under which names, and where they come from."""

    model: str = Field(
        "all-MiniLM-L6-v2",
        min_length=1,
        description="Card name, folder, or Hub id (org/name) of the model to serve.",
    )
    models: ModelTable = Field(
        default_factory=dict,
        description="Further models: tables [models.NAME] in the TOML file, JSON, or sources, comma-separated; the "
        "flag --model may be repeated instead.",
    )
    cache_dir: UserPath = Field(
        default_factory=_default_cache_dir,
        validate_default=True,
        description="Where fetched models and exported graphs are kept (default ~/.cache/nestvec).",
    )
    packed_weights_cache: bool = Field(
        True,
        description="Keep the weights of models over 256 MB beside the exported graph as this CPU's kernels take them: "
        "they are mapped, which opens the model in about a second and takes memory once for all sessions. Needs twice "
        "the model's size on disk; without room the model is served as with false.",
    )
    served_model_name: str | None = Field(
        None, min_length=1, description="Name to serve the model under instead of its own."
    )
    model_aliases: TextList = Field(
        default_factory=list, description="Further names for the model, comma-separated."
    )
    aliases: AliasTable = Field(
        default_factory=dict,
        description="Further names that stand for a prompt, dimensions, layers, a map or a dtype too, for clients that "
        "can send none of them: a table in the TOML file, or JSON.",
    )
    recipes: RecipeTable = Field(
        default_factory=dict,
        description="Models made of others (docs/vectors/recipes.md): tables [recipes.NAME] in the TOML file, or JSON.",
    )
    openai_aliases: bool = Field(
        True, description="Answer to text-embedding-ada-002, -3-small and -3-large as well."
    )
    adapters: AdapterTable = Field(
        default_factory=dict,
        description="Folders of LoRA adapters by the task that asks for each: a table in the TOML file, or JSON.",
    )
    picture_model: str = Field(
        "",
        description="Card name, folder, or Hub id of a model of pictures in the space of the model, which is of texts: "
        "nomic-embed-vision beside nomic-embed-text (docs/vectors/pictures.md).",
    )
    text: TextTable = Field(
        default_factory=TextSettings,
        description="What is made of texts and records before the tokenizer (docs/vectors/texts.md): a table of "
        "`unicode`, "
        "`strip` and `template` in the TOML file, or JSON.",
    )
    max_models_bytes: int = Field(
        0,
        ge=0,
        description="What loaded models may take together (graphs and weights); idle ones are unloaded, least recently "
        "used first, and loaded again when meant. 0: no bound.",
    )
    admin_api: bool = Field(
        False,
        description="Routes to load and unload models (/admin/models), for keys with the admin right.",
    )
    accept_any_model: bool = Field(False, description="Answer to any model name.")
    model_revision: str = Field("", description="Hub commit, tag or branch to pin.")
    models_dir: UserPath | None = Field(
        None, description="Folder with your own model cards, looked into first."
    )
    offline: bool = Field(
        False, description="Never use the network; the cache must have the model."
    )
    read_pickles: bool = Field(
        True,
        description="Read weights that a model has only as torch saves them (pytorch_model.bin). No code in such a "
        "file runs, whatever it holds; false fetches and opens none.",
    )
    max_input_tokens: int | None = Field(
        None, ge=3, description="Take fewer tokens an input than the model could."
    )
    picture_patches: int | None = Field(
        None,
        ge=16,
        le=4096,
        description="Most patches of a picture, of models that take pictures in their own shape (SigLIP 2 NaFlex), "
        "where a request does not say; default: as the model's folder says.",
    )
