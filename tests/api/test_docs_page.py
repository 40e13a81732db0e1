"""The documentation: a whole OpenAPI document, and a page that needs nothing from elsewhere."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.api.applications import Api
from tests.server import running_server
from tests.tiny import write_tiny_bert

BROWSER = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


async def test_the_openapi_document_describes_the_routes(api: Api) -> None:
    """Bodies, answers, errors and examples."""
    document = (await api.client.get("/openapi.json")).json()
    embeddings = document["paths"]["/v1/embeddings"]["post"]
    body = embeddings["requestBody"]["content"]["application/json"]["schema"]
    assert {"input", "model", "dimensions", "encoding_format", "truncate"} <= set(
        body["properties"]
    )
    assert body["examples"]
    assert {"200", "400", "401", "404", "413", "429", "503", "504"} <= set(embeddings["responses"])
    assert {"/v1/models", "/v1/models/{model}", "/health/ready", "/metrics"} <= set(
        document["paths"]
    )
    assert "/embeddings" not in document["paths"]  # an alias


async def test_the_page_loads_its_parts_from_here(api: Api) -> None:
    """No other host is named in it."""
    page = (await api.client.get("/docs")).text
    for link in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert link.startswith("/"), link
        assert (await api.client.get(link)).status_code == 200, link


@pytest.mark.process
def test_a_real_browser_shows_the_routes(tmp_path: Path) -> None:
    """Chromium runs the page's script against a real server."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium absent")
    model = write_tiny_bert(tmp_path / "model")
    with running_server(tmp_path, model=model, cache_dir=tmp_path / "cache") as server:
        line = [
            browser,
            *BROWSER,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000",
        ]
        done = subprocess.run(
            [*line, "--dump-dom", f"{server.url}/docs"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "Create embeddings" in done.stdout
    assert "List models" in done.stdout
