"""The application over a fake backend, without a socket."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.dependencies import models
from nestvec.config.settings import Settings
from nestvec.main import build_app

from tests.api.applications import Api, Clock, Jobs, MakeApi
from tests.support.served import ServedOptions, serve_fake


@pytest.fixture(autouse=True)
def _no_application_for_ever() -> Iterator[None]:
    """Let a test's applications go: FastAPI caches what it knows of callables, which hold their application.

    With hundreds of them every garbage collection takes a second.
    """
    yield
    for value in vars(models).values():
        clear = getattr(value, "cache_clear", None)
        if clear is not None:
            clear()


@pytest.fixture
async def make_api(tiny_folder: Path) -> AsyncIterator[MakeApi]:
    """Build applications with settings of the test's own; all are closed when the test ends."""
    apis: list[Api] = []

    def make(options: ServedOptions | None = None, **settings: Any) -> Api:
        app = build_app(Settings(**settings))
        served = serve_fake(
            tiny_folder / "tokenizer.json", options, also_tell=app.state.metrics.engine
        )
        for slot in served.service.models.all():
            app.state.metrics.model_changed(slot)
        app.state.become_ready(served.service)
        if "keys_file" in settings:
            app.state.keys.usage.flush()  # as a server's start reads what was used before
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://server")
        apis.append(Api(client, app, served))
        return apis[-1]

    yield make
    for api in apis:
        api.served.backend.gate.set()
        await api.client.aclose()
        api.served.service.close()


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    """An application with default settings."""
    return make_api()


@pytest.fixture
async def jobs(make_api: MakeApi, tmp_path: Path) -> AsyncIterator[Jobs]:
    """Files and batches of an application whose queue takes whole groups of lines."""
    api = make_api(ServedOptions(max_queue_tokens=10**9), max_file_bytes=300_000)
    jobs = Jobs(api, tmp_path / "data", Clock())
    jobs.open()
    yield jobs
    api.served.backend.gate.set()
    await jobs.runner.close()
