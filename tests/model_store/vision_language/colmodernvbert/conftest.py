"""A tiny ColModernVBERT, exported once, and a service and an application of it in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from nestvec.assembly.library.embedder import Embedder
from nestvec.engine.types import OutputKind
from starlette.testclient import TestClient

from tests.model_store.vision_language.colmodernvbert.models import write_model
from tests.model_store.vision_language.in_process import (
    MODEL,
    Embed,
    client_of,
    embed_with,
    open_tiny,
)


@pytest.fixture(scope="session")
def tiled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the model, and its artefacts once they are there."""
    folder = tmp_path_factory.mktemp("colmodernvbert")
    (folder / MODEL).mkdir()
    write_model(folder / MODEL)
    return folder


@pytest.fixture(scope="session")
def tiled(tiled_folder: Path) -> Iterator[Embedder]:
    """Return the model in this process."""
    with open_tiny(tiled_folder) as opened:
        yield opened


@pytest.fixture
def tokens_of(tiled: Embedder) -> Embed:
    """Return what makes token vectors of inputs, with options of the engine's own calls."""
    return embed_with(tiled, kind=OutputKind.TOKENS)


@pytest.fixture(scope="session")
def tiled_pages(
    tiled_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """Return a client of an application of the tiny ColModernVBERT."""
    with client_of(tiled_folder, tmp_path_factory.mktemp("data"), "tiles") as client:
        yield client
