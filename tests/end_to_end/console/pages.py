"""A real browser in front of a real server, and what its pages must never do."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.server import RunningServer

BROWSER = shutil.which("chromium")
WIDE = {"width": 1440, "height": 1000}
PHONE = {"width": 390, "height": 844}
TIMEOUT_MS = 20_000


@dataclass
class Watched:
    """A page, and what it said and asked for meanwhile.

    Attributes:
        page: Playwright's page.
        said: Messages of its console, errors included.
        foreign: URLs of other hosts that it asked for.
        posted: Paths that it posted to.
    """

    page: Any
    said: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    posted: list[str] = field(default_factory=list)

    def assert_quiet(self) -> None:
        """Check that the page broke no policy, threw nothing, and stayed on its host."""
        assert self.said == []
        assert self.foreign == []


@contextmanager
def browser_page(
    base: str, *, viewport: dict[str, int] | None = None, scheme: str = "light"
) -> Iterator[Watched]:
    """Open a browser with an empty page that is watched; the test is skipped where there is no browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("chromium absent")
    with playwright.sync_playwright() as running:
        # As root, which tests in containers are, Chromium cannot make its own sandbox.
        browser = running.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        context = browser.new_context(
            viewport=viewport or WIDE,
            color_scheme=scheme,
            reduced_motion="reduce",
            accept_downloads=True,
        )
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        watched = Watched(page)
        page.on("console", lambda message: watched.said.append(message.text))
        page.on("pageerror", lambda error: watched.said.append(str(error)))

        def note(request: Any) -> None:
            if not request.url.startswith((base, "data:", "blob:")):
                watched.foreign.append(request.url)
            if request.method == "POST":
                watched.posted.append(httpx.URL(request.url).path)

        page.on("request", note)
        yield watched
        browser.close()


def open_view(watched: Watched, server: RunningServer, view: str) -> None:
    """Open a view by its address, from an empty page: nothing of an earlier one is left."""
    watched.page.goto("about:blank")
    watched.page.goto(f"{server.url}/console/#/{view}")
    watched.page.get_by_role("navigation", name="Views").wait_for()


def raw_vectors(server: RunningServer, texts: list[str], **fields: object) -> NDArray[np.float64]:
    """Return vectors of texts as the server gives them to anybody, `[N, D]`."""
    body = {"input": texts, "normalize": False, **fields}
    answer = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60).raise_for_status()
    return np.array([row["embedding"] for row in answer.json()["data"]], np.float64)


def stored(raw: NDArray[np.float64], dimensions: int, dtype: str) -> NDArray[np.float64]:
    """Return unit vectors of what is stored of each vector, `[N, dimensions]`: by numpy alone."""
    cut = raw[:, :dimensions]
    cut = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    if dtype == "binary":
        cut = np.where(cut > 0, 1.0, -1.0)
    if dtype == "float16":
        cut = cut.astype(np.float16).astype(np.float64)
    unit: NDArray[np.float64] = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    return unit


def heat_map(watched: Watched, caption: str) -> NDArray[np.float64]:
    """Return the figures of a table of cosines, `[N, M]`."""
    table = watched.page.get_by_role("region", name=caption)
    rows = table.locator("tbody tr").all()
    return np.array([[float(cell) for cell in row.locator("td").all_inner_texts()] for row in rows])


def hits(card: Any) -> list[str]:
    """Return the texts of a list of hits, the first one first."""
    texts: list[str] = card.locator(".hits .text").all_inner_texts()
    return texts


def write_lines(folder: Path, name: str, lines: list[str]) -> Path:
    """Write lines to a file; return its path."""
    path = folder / name
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
