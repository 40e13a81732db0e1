"""Every kind of front work ends within a second of its 504, or its caller's departure; short work passes it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.chaos.conftest import Report
from tests.support.front_work import HEAVY, SETTINGS, ask, assert_idle, busy_threads, leave
from tests.support.server import RunningServer, running_server

pytestmark = [pytest.mark.process, pytest.mark.load]


@pytest.fixture(scope="module", params=[1, 2])
def server(
    request: pytest.FixtureRequest,
    tiny_folder: Path,
    tiny_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RunningServer]:
    """A server with one thread for the front's work, or with two."""
    settings = {**SETTINGS, "front_threads": request.param}
    folder = tmp_path_factory.mktemp("server")
    with running_server(folder, model=tiny_folder, cache_dir=tiny_cache, **settings) as running:
        yield running


@pytest.mark.parametrize("name", HEAVY)
def test_a_deadline_ends_work(server: RunningServer, name: str) -> None:
    """The threads are free within a second of the answer."""
    assert ask(server, HEAVY[name], timeout_ms=300) == 504
    assert_idle(server)


@pytest.mark.parametrize("name", HEAVY)
def test_a_departure_ends_work(server: RunningServer, name: str) -> None:
    """The threads are free within a second of the closed connection."""
    leave(server, HEAVY[name])
    assert_idle(server)


def test_short_texts_pass_long_work(server: RunningServer, report: Report) -> None:
    """While all threads are busy for seconds, and as much waits, a request of some thousand characters is answered."""
    took_s = []
    with ThreadPoolExecutor(8) as pool:
        heavy = [
            pool.submit(ask, server, HEAVY[name], 4000) for name in ("windows", "markdown") * 4
        ]
        while not busy_threads(server):
            assert not all(each.done() for each in heavy)
        while not all(each.done() for each in heavy):
            began_s = time.monotonic()
            body = {"input": ["alpha beta gamma " * 200], "truncate": "end"}
            answer = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=30)
            took_s.append(time.monotonic() - began_s)
            assert answer.status_code == 200, answer.text
    report(
        "short texts beside 8 heavy requests",
        f"{len(took_s)} answered, slowest {max(took_s):.2f} s",
    )
    assert max(took_s) < 2.5
    assert_idle(server)
