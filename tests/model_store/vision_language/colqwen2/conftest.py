"""A tiny ColQwen2, exported once, and a service and an application of it in this process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from nestvec.assembly.library.embedder import Embedder
from nestvec.engine.types import OutputKind
from starlette.testclient import TestClient

from tests.model_store.vision_language.colqwen2.models import write_model
from tests.model_store.vision_language.in_process import (
    MODEL,
    Embed,
    client_of,
    embed_with,
    open_tiny,
)


@pytest.fixture(scope="session")
def colqwen2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the model, and its artefacts once they are there."""
    folder = tmp_path_factory.mktemp("colqwen2")
    (folder / MODEL).mkdir()
    write_model(folder / MODEL)
    return folder


@pytest.fixture(scope="session")
def colqwen2(colqwen2_folder: Path) -> Iterator[Embedder]:
    """Return the model in this process."""
    with open_tiny(colqwen2_folder) as opened:
        yield opened


@pytest.fixture
def tokens_of(colqwen2: Embedder) -> Embed:
    """Return what makes token vectors of inputs, with options of the engine's own calls."""
    return embed_with(colqwen2, kind=OutputKind.TOKENS)


@pytest.fixture(scope="session")
def pages(colqwen2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Return a client of an application of the tiny ColQwen2."""
    with client_of(colqwen2_folder, tmp_path_factory.mktemp("data"), "pages") as client:
        yield client
