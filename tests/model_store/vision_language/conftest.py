"""A tiny Qwen3-VL, exported once, and a service and an application of it in this process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nestvec.assembly.library.embedder import Embedder
from nestvec.config.recipe_settings import RecipeSettings
from starlette.testclient import TestClient

from tests.model_store.two_towers.towers import write_model as write_towers
from tests.model_store.vision_language.in_process import (
    MODEL,
    Embed,
    client_of,
    embed_with,
    open_tiny,
)
from tests.model_store.vision_language.models import write_model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the model, and its artefacts once they are there."""
    folder = tmp_path_factory.mktemp("qwen3-vl")
    write_model(folder / MODEL)
    return folder


@pytest.fixture(scope="session")
def embedder(model_folder: Path) -> Iterator[Embedder]:
    """Return the model in this process."""
    with open_tiny(model_folder) as opened:
        yield opened


@pytest.fixture
def embed(embedder: Embedder) -> Embed:
    """Return what embeds inputs, with options of the engine's own calls."""
    return embed_with(embedder)


@pytest.fixture(scope="session")
def server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Return a client of an application of the tiny Qwen3-VL, of a tiny CLIP, and of recipes of them."""
    clip = tmp_path_factory.mktemp("clip")
    itself: dict[str, Any] = {"model": "vl"}
    recipes = {
        "twice": RecipeSettings(combine="concat", parts=[itself, {"model": "vl", "weight": 3}]),
        "joined": RecipeSettings(combine="concat", parts=[itself, {"model": "clip"}]),
    }
    models = {"clip": {"model": str(write_towers(clip / "clip", "clip"))}}
    data = tmp_path_factory.mktemp("data")
    with client_of(model_folder, data, "vl", models=models, recipes=recipes) as client:
        yield client
