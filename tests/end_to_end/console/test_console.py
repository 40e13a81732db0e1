"""The console in a real browser: figures are numpy's, orders are brute force's, links show the same view."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.end_to_end.console.pages import (
    browser_page,
    heat_map,
    hits,
    open_view,
    raw_vectors,
    stored,
)
from tests.support.server import RunningServer, running_server
from tests.support.tiny import write_tiny_bert

pytestmark = pytest.mark.process
TEXTS = ["a cat on a mat", "the dog barks", "stock markets fell", "it rains in Oslo", "a cat"]
COSINES = "Cosine similarity of each pair of texts"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of a tiny model."""
    folder = tmp_path_factory.mktemp("console")
    model = write_tiny_bert(folder / "tiny-bert")
    with running_server(folder, model=model, cache_dir=folder / "cache") as running:
        yield running


def test_figures_are_numpys(server: RunningServer) -> None:
    """Cosines of prefixes in each dtype are those of numpy; moving the slider asks the server for nothing."""
    raw = raw_vectors(server, TEXTS)
    with browser_page(server.url) as watched:
        page = watched.page
        open_view(watched, server, "try")
        page.get_by_role("textbox", name="Texts, one a line").fill("\n".join(TEXTS))
        page.get_by_role("button", name="Embed").click()
        page.get_by_role("rowheader", name=TEXTS[1]).wait_for()
        asked = watched.posted.count("/v1/embeddings")
        for dtype in ("float32", "float16", "binary"):
            page.get_by_role("combobox", name="Stored as").select_option(dtype)
            for size in (8, raw.shape[1]):
                page.get_by_role("slider").fill(str(size))
                page.get_by_role("heading", name=f"Cosine at {size} × {dtype}").wait_for()
                units = stored(raw, size, dtype)
                np.testing.assert_allclose(heat_map(watched, COSINES), units @ units.T, atol=0.0051)
        assert watched.posted.count("/v1/embeddings") == asked
        page.get_by_role("combobox", name="Stored as").select_option("int8")
        page.get_by_role("heading", name=f"Cosine at {raw.shape[1]} × int8").wait_for()
        page.get_by_role("region", name=COSINES).wait_for()
        codes = raw_vectors(server, TEXTS, output_dtype="int8", normalize=True)
        codes /= np.linalg.norm(codes, axis=1, keepdims=True)
        np.testing.assert_allclose(heat_map(watched, COSINES), codes @ codes.T, atol=0.0051)
        watched.assert_quiet()


def test_the_order_is_brute_forces_and_a_link_restores_it(server: RunningServer) -> None:
    """Both lists are in the order of all cosines; the page's address opens the same question and settings elsewhere."""
    documents = [
        f"{first} {second}"
        for first in ("cat", "dog", "rain")
        for second in ("sat", "ran", "fell", "is", "of")
    ]
    query = raw_vectors(server, ["a cat ran"], input_type="query")
    raw = raw_vectors(server, documents, input_type="document")
    with browser_page(server.url) as watched:
        page = watched.page
        open_view(watched, server, "search")
        page.get_by_role("textbox", name="Documents, one a line").fill("\n".join(documents))
        page.get_by_role("button", name="Embed documents").click()
        page.get_by_text("documents embedded").wait_for()
        page.get_by_role("searchbox").fill("a cat ran")
        page.get_by_role("button", name="Ask").click()
        cards = page.locator(".pair .card")
        cards.nth(1).get_by_role("combobox", name="Stored as").select_option("binary")
        cards.nth(1).get_by_role("slider").fill("8")
        cards.nth(1).locator("output", has_text="8").wait_for()
        for card, size, dtype in (
            (cards.nth(0), raw.shape[1], "float32"),
            (cards.nth(1), 8, "binary"),
        ):
            scores = (stored(raw, size, dtype) @ stored(query, size, dtype).T)[:, 0].round(9)
            order = np.argsort(-scores, kind="stable")[:10]
            assert hits(card) == [documents[index] for index in order]
        address = page.url
        page.goto("about:blank")
        page.goto(address)
        assert page.get_by_role("searchbox").input_value() == "a cat ran"
        assert page.get_by_role("textbox", name="Documents, one a line").input_value() == "\n".join(
            documents
        )
        watched.assert_quiet()


def test_every_view_opens_under_a_strict_policy(server: RunningServer) -> None:
    """No view says anything in the browser's console or asks another host; no policy allows inline scripts."""
    policy = httpx.get(f"{server.url}/console/index.html").headers["content-security-policy"]
    assert "unsafe" not in policy
    front = httpx.get(server.url, headers={"accept": "text/html"})
    assert "unsafe" not in front.headers["content-security-policy"]
    with browser_page(server.url) as watched:
        page = watched.page
        page.goto(server.url)
        page.get_by_role("link", name="Open the console").click()
        for name in ("Search", "Choose", "Map", "Live", "Models", "Batches", "Keys", "Try"):
            page.get_by_role("link", name=name, exact=True).click()
            page.get_by_role("heading", name=name, level=1, exact=True).wait_for()
        watched.assert_quiet()
