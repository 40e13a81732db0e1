"""A tiny Qwen3-VL, exported once, and a service and an application of it in this process."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nestvec.assembly.library.embedder import Embedder
from nestvec.config.recipe_settings import RecipeSettings
from nestvec.config.settings import Settings
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.results import EmbedResult
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall
from nestvec.main import build_app
from starlette.testclient import TestClient

from tests.model_store.two_towers.towers import write_model as write_towers
from tests.model_store.vision_language.models import write_model

Embed = Callable[..., EmbedResult]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the model, and its artefacts once they are there."""
    folder = tmp_path_factory.mktemp("qwen3-vl")
    write_model(folder / "model")
    return folder


@pytest.fixture(scope="session")
def embedder(model_folder: Path) -> Iterator[Embedder]:
    """Return the model in this process."""
    with Embedder(str(model_folder / "model"), cache_dir=model_folder / "cache") as opened:
        yield opened


@pytest.fixture
def embed(embedder: Embedder) -> Embed:
    """Return what embeds inputs, with options of the engine's own calls."""

    def call(*inputs: str | Picture | MixedInput, **options: Any) -> EmbedResult:
        service: EmbeddingService = embedder._service
        return embedder._run(service.embed(EmbedCall(inputs, **options)))

    return call


@pytest.fixture(scope="session")
def server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Return a client of an application of the tiny Qwen3-VL, of a tiny CLIP, and of recipes of them."""
    clip = tmp_path_factory.mktemp("clip")
    itself: dict[str, Any] = {"model": "vl"}
    recipes = {
        "twice": RecipeSettings(combine="concat", parts=[itself, {"model": "vl", "weight": 3}]),
        "joined": RecipeSettings(combine="concat", parts=[itself, {"model": "clip"}]),
    }
    settings = Settings(
        model=str(model_folder / "model"),
        served_model_name="vl",
        models={"clip": {"model": str(write_towers(clip / "clip", "clip"))}},
        recipes=recipes,
        cache_dir=model_folder / "cache",
        data_dir=tmp_path_factory.mktemp("data"),
        offline=True,
    )
    with TestClient(build_app(settings)) as client:
        waiting = {"vl", "clip", *recipes}
        while waiting:
            time.sleep(0.02)
            listed = client.get("/v1/models").json().get("data", [])
            waiting -= {each["id"] for each in listed if each["state"] == "ready"}
        yield client
