"""A tiny ColPali, exported once, and an application of it in this process."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nestvec.assembly.library.embedder import Embedder
from nestvec.config.settings import Settings
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall, OutputKind
from nestvec.main import build_app
from starlette.testclient import TestClient

from tests.model_store.vision_language.colpali.models import write_model
from tests.model_store.vision_language.conftest import Embed


@pytest.fixture(scope="session")
def colpali_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the model, and its artefacts once they are there."""
    folder = tmp_path_factory.mktemp("colpali")
    (folder / "model").mkdir()
    write_model(folder / "model")
    return folder


@pytest.fixture(scope="session")
def colpali(colpali_folder: Path) -> Iterator[Embedder]:
    """Return the model in this process."""
    folder = str(colpali_folder / "model")
    with Embedder(folder, cache_dir=colpali_folder / "cache") as opened:
        yield opened


@pytest.fixture
def patches_of(colpali: Embedder) -> Embed:
    """Return what makes token vectors of inputs, with options of the engine's own calls."""

    def call(*inputs: str | Picture | MixedInput, **options: Any) -> EmbedResult:
        asked = EmbedCall(inputs, **{"kind": OutputKind.TOKENS, **options})
        return colpali._run(colpali._service.embed(asked))

    return call


@pytest.fixture(scope="session")
def library(colpali_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Return a client of an application of the tiny ColPali."""
    settings = Settings(
        model=str(colpali_folder / "model"),
        served_model_name="pages",
        cache_dir=colpali_folder / "cache",
        data_dir=tmp_path_factory.mktemp("data"),
        offline=True,
    )
    with TestClient(build_app(settings)) as client:
        while [row["state"] for row in client.get("/v1/models").json().get("data", [])] != [
            "ready"
        ]:
            time.sleep(0.02)
        yield client
