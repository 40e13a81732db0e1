"""The console's Try and Search with pictures, against a tiny model of two towers."""

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.console.pages import (
    browser_page,
    heat_map,
    open_view,
    raw_vectors,
    stored,
)
from tests.engine.pictures.hostile import encoded, pixels
from tests.model_store.two_towers.towers import write_model
from tests.support.server import RunningServer, running_server
from tests.support.tiny import write_tiny_bert

pytestmark = [pytest.mark.process, pytest.mark.ui]
TEXTS = ["red and green", "two blue"]
COSINES = "Cosine similarity of each pair of texts"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two pictures, turned against each other."""
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / "one.png", folder / "two.jpg"]
    paths[0].write_bytes(encoded(pixels(), "PNG"))
    paths[1].write_bytes(encoded(pixels().rotate(180), "JPEG"))
    return paths


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of a tiny CLIP."""
    folder = tmp_path_factory.mktemp("console")
    model = write_model(folder / "clip", "clip")
    with running_server(folder, model=model, cache_dir=folder / "cache") as running:
        yield running


def parts(files: list[Path]) -> list[dict[str, str]]:
    """Return pictures as inputs of a body."""
    urls = [f"data:;base64,{base64.b64encode(path.read_bytes()).decode()}" for path in files]
    return [{"type": "image_url", "image_url": url} for url in urls]


def test_try_compares_texts_and_pictures(server: RunningServer, files: list[Path]) -> None:
    """Figures of texts and pictures, in float32 and int8, are those that plain HTTP gives."""
    raw = raw_vectors(server, [*TEXTS, *parts(files)])  # type: ignore[list-item]  # pictures too
    with browser_page(server.url) as watched:
        page = watched.page
        open_view(watched, server, "try")
        page.get_by_role("textbox", name="Texts, one a line").fill("\n".join(TEXTS))
        page.get_by_label("And pictures").set_input_files(files)
        page.get_by_role("rowheader", name="two.jpg").wait_for()
        units = stored(raw, raw.shape[1], "float32")
        np.testing.assert_allclose(heat_map(watched, COSINES), units @ units.T, atol=0.0051)
        assert "2 texts and 2 pictures" in page.content()
        assert page.get_by_role("img", name="one.png").count() == 1
        watched.assert_quiet()


def test_search_finds_pictures_by_texts_and_by_pictures(
    server: RunningServer, files: list[Path]
) -> None:
    """Documents are texts and pictures, and so is the question; a picture is nearest to itself."""
    with browser_page(server.url) as watched:
        page = watched.page
        open_view(watched, server, "search")
        page.get_by_role("textbox", name="Documents, one a line").fill("\n".join(TEXTS))
        page.get_by_label("And pictures").set_input_files(files)
        page.get_by_text("4 documents embedded").wait_for()
        page.get_by_label("Or by a picture").set_input_files(files[1])
        page.get_by_text("first hits are the same").wait_for()
        first = page.locator(".hits").first.locator("li").first
        assert first.get_by_role("img", name="two.jpg").count() == 1
        page.get_by_role("searchbox").fill(TEXTS[1])
        page.get_by_role("button", name="Ask").click()
        first.get_by_text(TEXTS[1]).wait_for()
        watched.assert_quiet()


def test_models_of_texts_are_asked_for_none(tmp_path: Path) -> None:
    """Where the model takes texts only, no view has a place for pictures."""
    model = write_tiny_bert(tmp_path / "tiny-bert")
    with (
        running_server(tmp_path, model=model, cache_dir=tmp_path / "cache") as server,
        browser_page(server.url) as watched,
    ):
        for view, label in (("try", "Embed"), ("search", "Ask")):
            open_view(watched, server, view)
            watched.page.get_by_role("button", name=label).first.wait_for()
            assert watched.page.get_by_label("And pictures").count() == 0
        watched.assert_quiet()
