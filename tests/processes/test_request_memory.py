"""A server's memory grows by a stated multiple of the largest request at most; the long form is in the chaos suite."""

import re
from pathlib import Path

import httpx
import pytest

from tests.support.largest_requests import BODY, MIB, largest_requests, memory_of, reset_peak
from tests.support.server import running_server

pytestmark = pytest.mark.process
# What differs most in how it takes memory. What a request leaves behind in the process, freed but kept for the next,
# counts for those that follow.
CASES = ("a file of line ends", "a bomb", "too many objects", "one text")

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
# The requests of a row, what they are in brackets, their routes, and the multiple.
ROW = re.compile(
    r"^\| (?P<names>[^|(]+) (?:\([^|]*\) )?\| (?P<routes>`/[^|]*`) \| (?P<most>\d+) \|$",
    re.MULTILINE,
)


def test_the_page_states_the_bounds_that_are_tested() -> None:
    """The table of docs/security.md has each of the largest requests, with its route and the growth that is tested."""
    stated: dict[str, tuple[int, str]] = {}
    for row in ROW.finditer(PAGE.read_text()):
        for name in row["names"].split("; "):
            stated[name] = int(row["most"]), row["routes"]
    requests = largest_requests("NAME", 1)
    assert {name: most for name, (most, _) in stated.items()} == {
        name: request.growth_bytes // BODY for name, request in requests.items()
    }
    for name, request in requests.items():
        assert f"`{request.path}`" in stated[name][1], name


def test_memory_grows_as_the_table_says(tmp_path: Path) -> None:
    """Each of some largest requests to one server stays within the growth that docs/security.md states for it."""
    requests = largest_requests("static", 256)
    with running_server(tmp_path, model="static") as server:
        pid = server.process.pid
        httpx.post(f"{server.url}/v1/embeddings", json={"input": ["warm"] * 100})
        try:
            before_bytes = reset_peak(pid)
        except OSError:
            pytest.skip("the peak of a process's memory cannot be reset here")
        allowed_bytes = 0
        for name in CASES:
            request = requests[name]
            allowed_bytes = max(allowed_bytes, request.growth_bytes)
            reset_peak(pid)
            answer = httpx.post(
                f"{server.url}{request.path}",
                content=request.body(),
                headers=request.headers,
                timeout=60,
            )
            assert answer.status_code in request.statuses, (name, answer.text[:200])
            growth_bytes = memory_of(pid, "VmHWM") - before_bytes
            assert growth_bytes <= allowed_bytes, (name, growth_bytes / MIB)
