"""A tiny Qwen3-VL, exported once, and a service of it in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nestvec.assembly.library.embedder import Embedder
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.results import EmbedResult
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import EmbedCall

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
