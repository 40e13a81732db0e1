"""Every view of the console against real servers: what it shows, what it does, and that everybody can use it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from nestvec.keys.records import KeyFile, KeyLimits
from nestvec.model_store.artefacts.kept_reports import write_quality

from tests.end_to_end.console.pages import (
    PHONE,
    WIDE,
    Watched,
    browser_page,
    hits,
    open_view,
    raw_vectors,
    stored,
    write_lines,
)
from tests.support.server import RunningServer, running_server
from tests.support.services import free_port
from tests.support.tiny import write_tiny_bert

pytestmark = [pytest.mark.process, pytest.mark.ui]
AXE = Path("app/web/node_modules/axe-core/axe.min.js")
VIEWS = ("try", "search", "choose", "map", "live", "models", "batches", "keys")
SERIOUS = ("serious", "critical")
FIGURES: list[dict[str, Any]] = [
    {"dimensions": 32, "dtype": "float", "layers": 0, "map": "", "bytes": 128, "score": 0.8},
    {"dimensions": 32, "dtype": "int8", "layers": 0, "map": "", "bytes": 32, "score": 0.79},
    {"dimensions": 8, "dtype": "float", "layers": 0, "map": "", "bytes": 32, "score": 0.5},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model."""
    folder = tmp_path_factory.mktemp("views")
    write_tiny_bert(folder / "tiny-bert")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    """A server of the tiny model, of which a report has been made."""
    settings = {"model": folder / "tiny-bert", "cache_dir": folder / "cache"}
    with running_server(folder, **settings):
        pass
    for manifest in (folder / "cache" / "artefacts").glob("*/manifest.json"):
        rows = [{**row, "low": row["score"] - 0.05, "high": row["score"] + 0.05} for row in FIGURES]
        quality = {
            "space": manifest.parent.name,
            "made_s": 1,
            "nestvec": "0",
            "throughput": {},
            "recommendations": [{"budget": 0.02, "text": "At most 2% loss: int8."}],
            "tasks": [{"task": "titles", "metric": "ndcg_at_10", "n": 9, "figures": rows}],
        }
        write_quality(manifest.parent, quality)
    with running_server(folder, **settings) as running:
        yield running


def overflow(watched: Watched) -> int:
    """Return by how many pixels the page is wider than the screen."""
    width: int = watched.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, WIDE], ids=["phone", "wide"])
def test_everybody_can_use_every_view(
    server: RunningServer, viewport: dict[str, int], scheme: str
) -> None:
    """Axe finds nothing serious, and nothing runs out of the screen."""
    if not AXE.exists():
        pytest.skip("axe-core absent, run `make test-ui`")
    with browser_page(server.url, viewport=viewport, scheme=scheme) as watched:
        for view in VIEWS:
            open_view(watched, server, view)
            if view == "map":
                watched.page.get_by_role("button", name="Draw").click()
                watched.page.get_by_role("group", name="Texts as points").wait_for()
            if view == "try":
                watched.page.get_by_role("button", name="Explain").click()
                watched.page.get_by_text("They add up to").wait_for()
            watched.page.evaluate(AXE.read_text("utf-8"))
            found = watched.page.evaluate("axe.run().then((result) => result.violations)")
            serious = [
                (view, each["id"], each["nodes"][0]["html"], each["nodes"][0]["failureSummary"])
                for each in found
                if each["impact"] in SERIOUS
            ]
            assert serious == []
            assert overflow(watched) <= 0, view
        watched.assert_quiet()


def test_choose_makes_settings_of_a_point(server: RunningServer) -> None:
    """A point tells bytes and interval, becomes a request, and is in the address."""
    with browser_page(server.url) as watched:
        page = watched.page
        open_view(watched, server, "choose")
        point = page.get_by_role(
            "button", name="32 × int8: 32 bytes, 0.790, interval 0.740 to 0.840"
        )
        point.focus()
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="32 × int8").wait_for()
        assert "32.0 MB" in page.locator("dl.figures").inner_text()
        request = json.loads(page.get_by_role("tabpanel").inner_text())
        assert (request["dimensions"], request["output_dtype"]) == (32, "int8")
        address = page.url
        page.goto("about:blank")
        page.goto(address)
        page.get_by_role("heading", name="32 × int8").wait_for()


def test_a_report_is_made_and_shown(server: RunningServer) -> None:
    """A report is asked for, watched until it is done, and its figures are those of the API."""
    with browser_page(server.url) as watched:
        page = watched.page
        open_view(watched, server, "choose")
        page.get_by_role("combobox", name="What to find out").select_option("numbers")
        page.get_by_role("button", name="Make the report").click()
        page.get_by_role("region", name="Figures of the report").wait_for(timeout=60_000)
        made = httpx.get(f"{server.url}/v1/reports").json()["data"][0]
        result = httpx.get(f"{server.url}/v1/reports/{made['id']}").json()["result"]
        cells = page.get_by_role("region", name="Figures of the report").locator(
            "tbody td:first-child"
        )
        assert cells.all_inner_texts() == [figure["name"] for figure in result["figures"]]
        watched.assert_quiet()


def test_neighbours_of_a_map_are_those_of_whole_vectors(server: RunningServer) -> None:
    """The five nearest of a point are those by cosine."""
    texts = [
        f"{first} {second}" for first in ("cat", "dog", "rain") for second in ("sat", "ran", "fell")
    ]
    units = stored(raw_vectors(server, texts), 32, "float32")
    with browser_page(server.url) as watched:
        page = watched.page
        open_view(watched, server, "map")
        page.get_by_role("textbox", name="Texts, one a line").fill("\n".join(texts))
        page.get_by_role("button", name="Draw").click()
        page.get_by_role("button", name="cat ran, cluster").focus()
        page.locator(".neighbours b", has_text="cat ran").wait_for()
        order = [index for index in np.argsort(-(units @ units[1]), kind="stable") if index != 1]
        assert hits(page.locator(".neighbours")) == [texts[index] for index in order[:5]]


def test_a_table_is_read_in_the_browser(server: RunningServer, tmp_path: Path) -> None:
    """A CSV's column of texts is embedded, with quotes, commas and line ends inside fields."""
    rows = ["id,Text", '1,"a cat, on a mat"', '2,"say ""dog"""', '3,"two', 'lines"']
    table = write_lines(tmp_path, "docs.csv", rows)
    with browser_page(server.url) as watched:
        page = watched.page
        open_view(watched, server, "search")
        page.get_by_label("Or a file").set_input_files(table)
        page.get_by_text("docs.csv: 3 texts, column “Text”").wait_for()
        page.get_by_role("searchbox").fill("dog")
        page.get_by_role("button", name="Ask").click()
        page.locator(".hits").first.wait_for()
        expected = {"a cat, on a mat", 'say "dog"', "two\nlines"}
        assert {
            text.replace("two lines", "two\nlines")
            for text in hits(page.locator(".pair .card").first)
        } == expected


def test_live_shows_what_the_server_does(server: RunningServer) -> None:
    """Requests of others appear; the page's own are no traffic."""
    with browser_page(server.url) as watched:
        page = watched.page
        open_view(watched, server, "live")
        page.get_by_text("since the start").wait_for()
        figure = page.locator("dl.figures div", has_text="since the start").locator("dd")
        page.wait_for_timeout(4500)  # the page has asked for the models too
        before = int(figure.inner_text().split()[0])
        raw_vectors(server, ["a"])
        raw_vectors(server, ["b"])
        deadline = time.monotonic() + 20
        while int(figure.inner_text().split()[0]) < before + 2 and time.monotonic() < deadline:
            page.wait_for_timeout(200)
        page.wait_for_timeout(4500)
        assert int(figure.inner_text().split()[0]) == before + 2


def test_a_batch_from_upload_to_download(server: RunningServer, tmp_path: Path) -> None:
    """A file is sent, watched until it is done, and its vectors are fetched."""
    lines = [
        json.dumps(
            {
                "custom_id": str(n),
                "method": "POST",
                "url": "/v1/embeddings",
                "body": {"input": f"cat {n}"},
            }
        )
        for n in range(20)
    ]
    with browser_page(server.url) as watched:
        page = watched.page
        open_view(watched, server, "batches")
        page.get_by_label("File of requests").set_input_files(
            write_lines(tmp_path, "in.jsonl", lines)
        )
        page.get_by_text("20 of 20").wait_for()
        page.get_by_role("button", name="Vectors").wait_for()
        with page.expect_download() as download:
            page.get_by_role("button", name="Vectors").click()
        rows = Path(download.value.path()).read_text().splitlines()
        assert {json.loads(row)["custom_id"] for row in rows} == {str(n) for n in range(20)}


def test_keys_loading_and_unloading(folder: Path, tmp_path: Path) -> None:
    """Without a key the page says so; with one it shows that key's usage, with the admin right it unloads and loads."""
    keys = KeyFile.read(tmp_path / "keys.json")
    admin = keys.add("operator", KeyLimits(), is_admin=True)[1]
    keys.write()
    settings = {"model": folder / "tiny-bert", "cache_dir": folder / "cache", "admin_api": True}
    with (
        running_server(tmp_path, keys_file=tmp_path / "keys.json", **settings) as server,
        browser_page(server.url) as watched,
    ):
        page = watched.page
        open_view(watched, server, "keys")
        page.get_by_text("This server asks for a key").first.wait_for()
        page.get_by_placeholder("API key").fill(admin)
        page.get_by_role("button", name="Use key").click()
        page.get_by_text("operator").wait_for()
        page.get_by_role("link", name="Models").click()
        page.get_by_role("button", name="Unload").click()
        page.get_by_role("button", name="Load", exact=True).click()
        page.get_by_role("button", name="Unload").wait_for()
        assert admin not in page.url
        assert admin not in server.logs()


def test_behind_processes_proxies_and_other_ports(folder: Path, tmp_path: Path) -> None:
    """Two HTTP processes below a root path serve it; where metrics are on another port it says so."""
    settings = {"model": folder / "tiny-bert", "cache_dir": folder / "cache"}
    with (
        running_server(
            tmp_path, http_processes=2, root_path="/sub", operations_port=free_port(), **settings
        ) as server,
        browser_page(server.url) as watched,
    ):
        watched.page.goto(f"{server.url}/sub/console")
        watched.page.get_by_role("region").first.wait_for()
        assert watched.page.url.startswith(f"{server.url}/sub/console/index.html")
        watched.page.get_by_role("link", name="Live").click()
        watched.page.get_by_text("The metrics are on another port").wait_for()
        assert watched.foreign == []


def test_it_can_be_switched_off(folder: Path, tmp_path: Path) -> None:
    """Without the console there is no page, and nothing leads to one."""
    settings = {"model": folder / "tiny-bert", "cache_dir": folder / "cache", "console": False}
    with running_server(tmp_path, **settings) as server:
        assert httpx.get(f"{server.url}/console/index.html").status_code == 404
        front = httpx.get(server.url, headers={"accept": "text/html"}).text
        assert "console/" not in front
