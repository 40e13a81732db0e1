"""The table of docs/security.md: how far the largest request to each route lets a server's memory grow."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.chaos.conftest import Report
from tests.support.largest_requests import (
    MIB,
    LargestRequest,
    largest_requests,
    memory_of,
    reset_peak,
)
from tests.support.server import running_server

pytestmark = [pytest.mark.process, pytest.mark.load]
MODELS = {"static": 256, "all-MiniLM-L6-v2": 384}
# What a text model does apart from what the other cases show.
OF_THE_DEFAULT_MODEL = ("one text", "short texts", "token ids", "embed_all", "explained pairs")


def cases() -> Iterator[tuple[str, str]]:
    """Every request to a static model, and to the default one those whose answers hold tokens."""
    for name in largest_requests("static", MODELS["static"]):
        yield "static", name
    for name in OF_THE_DEFAULT_MODEL:
        yield "all-MiniLM-L6-v2", name


@pytest.mark.parametrize(("model", "name"), list(cases()))
def test_memory_grows_as_the_table_says(
    tmp_path: Path, report: Report, model: str, name: str
) -> None:
    """The largest request to a server of its own stays within what is stated, and the server goes on."""
    request: LargestRequest = largest_requests(model, MODELS[model])[name]
    with running_server(tmp_path, model=model, vector_cache_bytes=0) as server:
        pid = server.process.pid
        httpx.post(f"{server.url}/v1/embeddings", json={"input": ["warm"] * 100}, timeout=60)
        try:
            before_bytes = reset_peak(pid)
        except OSError:
            pytest.skip("the peak of a process's memory cannot be reset here")
        answer = httpx.post(
            f"{server.url}{request.path}",
            content=request.body(),
            headers=request.headers,
            timeout=120,
        )
        growth_bytes = memory_of(pid, "VmHWM") - before_bytes
        report(
            f"largest request, {model}, {name}",
            f"{answer.status_code}, {growth_bytes / MIB:.0f} MiB of {request.growth_bytes / MIB:.0f} MiB",
        )
        assert answer.status_code in request.statuses, answer.text[:200]
        assert growth_bytes <= request.growth_bytes, growth_bytes / MIB
        assert httpx.get(f"{server.url}/health/ready").status_code == httpx.codes.OK
