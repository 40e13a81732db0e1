"""Tiny models in this process, for the fixtures of each family: what calls them, and an application of them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nestvec.assembly.library.embedder import Embedder
from nestvec.config.settings import Settings
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.results import EmbedResult
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall
from nestvec.main import build_app
from starlette.testclient import TestClient

Embed = Callable[..., EmbedResult]
MODEL = "model"
CACHE = "cache"


def open_tiny(folder: Path) -> Embedder:
    """Open the model of a folder that has it, and its artefacts once they are there."""
    return Embedder(str(folder / MODEL), cache_dir=folder / CACHE)


def embed_with(embedder: Embedder, **always: Any) -> Embed:
    """Return what embeds inputs, with options of the engine's own calls, some of them always."""

    def call(*inputs: str | Picture | MixedInput, **options: Any) -> EmbedResult:
        service: EmbeddingService = embedder._service
        return embedder._run(service.embed(EmbedCall(inputs, **{**always, **options})))

    return call


@contextmanager
def client_of(folder: Path, data_dir: Path, name: str, **others: Any) -> Iterator[TestClient]:
    """Give a client of an application of a folder's model, once all that it serves is ready.

    Args:
        folder: Holds the model.
        data_dir: The application's own.
        name: What the model is served as.
        others: Further settings.
    """
    settings = Settings(
        model=str(folder / MODEL),
        served_model_name=name,
        cache_dir=folder / CACHE,
        data_dir=data_dir,
        offline=True,
        **others,
    )
    with TestClient(build_app(settings)) as client:
        waiting = {name, *others.get("models", {}), *others.get("recipes", {})}
        while waiting:
            time.sleep(0.02)
            listed = client.get("/v1/models").json().get("data", [])
            waiting -= {each["id"] for each in listed if each["state"] == "ready"}
        yield client
