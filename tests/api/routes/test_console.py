"""The console's files: found behind any proxy, asked for again each time, and what their sources make."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.api.applications import Api

SOURCES = Path("app/web")
BUNDLE = Path("app/nestvec/api/console")
MAX_BYTES = 150_000


@pytest.mark.parametrize(
    ("path", "location"), [("/console", "console/index.html"), ("/console/", "index.html")]
)
async def test_the_page_has_a_path_of_its_own(api: Api, path: str, location: str) -> None:
    """The way there is relative, so that a proxy's prefix stays: the page names its parts beside itself."""
    answer = await api.client.get(path)
    assert answer.status_code == 307
    assert answer.headers["location"] == location


async def test_files_are_asked_for_again_and_known(api: Api) -> None:
    """Each file comes with a tag, by which it is not sent twice."""
    for path in BUNDLE.iterdir():
        answer = await api.client.get(f"/console/{path.name}")
        assert answer.content == path.read_bytes()
        assert answer.headers["cache-control"] == "no-cache"
        again = await api.client.get(
            f"/console/{path.name}", headers={"if-none-match": answer.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["none.js", "..%2fstate.py", "%2e%2e/state.py", "index.html/x"])
async def test_nothing_else_is_served(api: Api, name: str) -> None:
    """Other names are unknown, wherever they point to."""
    answer = await api.client.get(f"/console/{name}")
    assert answer.status_code == 404


def test_the_bundle_is_small() -> None:
    """It is committed and part of every installation."""
    assert sum(path.stat().st_size for path in BUNDLE.iterdir()) < MAX_BYTES


def test_the_bundle_is_what_its_sources_make() -> None:
    """Whoever changes a source builds the page anew."""
    node = shutil.which("node")
    if node is None or not (SOURCES / "node_modules").exists():
        pytest.skip("the console's tools are absent: `make console` installs them (needs Node)")
    done = subprocess.run(
        [node, "build.mjs", "--check"],
        cwd=SOURCES,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
