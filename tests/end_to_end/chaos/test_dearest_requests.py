"""No single request holds the event loop: the dearest that each route allows, sent to a real server."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.chaos.conftest import Report
from tests.end_to_end.chaos.dearest_requests import KEY, MODEL, DearRequest, dearest_requests
from tests.processes.test_dearest_requests import held_ms, watched_server
from tests.support.server import RunningServer

pytestmark = [pytest.mark.model, pytest.mark.process, pytest.mark.load]
MAX_HELD_MS = 50.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Path]]:
    """A server with the static model, and where long ticks of its loop are noted."""
    with watched_server(tmp_path_factory.mktemp("dearest")) as running:
        yield running


@pytest.mark.parametrize("request_", dearest_requests(), ids=lambda r: f"{r.route} {r.what}")
def test_no_request_holds_the_loop(
    server: tuple[RunningServer, Path], request_: DearRequest, report: Report
) -> None:
    """The loop's thread computes for no more than 50 ms between two ticks, whatever is asked of a route."""
    running, ticks = server
    with httpx.Client(
        base_url=running.url, timeout=120, headers={"authorization": f"Bearer {KEY}"}
    ) as client:
        client.post("/v1/embeddings", json={"input": "alpha", "model": MODEL})
        took_ms, status = held_ms(client, ticks, request_)
    report(f"loop held: {request_.route}, {request_.what}", f"{took_ms:.0f} ms, status {status}")
    assert status in request_.statuses
    assert took_ms <= MAX_HELD_MS
