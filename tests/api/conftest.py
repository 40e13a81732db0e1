"""The application over a fake backend, without a socket."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from nestvec.config.settings import Settings
from nestvec.main import build_app

from tests.api.applications import Api, Clock, Jobs, MakeApi
from tests.support.served import ServedOptions, serve_fake


@pytest.fixture
async def make_api(tiny_folder: Path) -> AsyncIterator[MakeApi]:
    """Build applications with settings of the test's own; all are closed at its end."""
    made: list[Api] = []

    def make(options: ServedOptions | None = None, **settings: Any) -> Api:
        app = build_app(Settings(**settings))
        served = serve_fake(tiny_folder / "tokenizer.json", options, also_tell=app.state.metrics)
        for slot in served.service.models.all():
            app.state.metrics.model_changed(slot)
        app.state.become_ready(served.service)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url="http://server")
        made.append(Api(client, app, served))
        return made[-1]

    yield make
    for api in made:
        api.served.backend.gate.set()
        await api.client.aclose()
        api.served.service.close()


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    """One with default settings."""
    return make_api()


@pytest.fixture
async def jobs(make_api: MakeApi, tmp_path: Path) -> AsyncIterator[Jobs]:
    """Open, with room for whole groups."""
    api = make_api(ServedOptions(max_queue_tokens=10**9), max_file_bytes=300_000)
    made = Jobs(api, tmp_path / "data", Clock())
    made.open()
    yield made
    api.served.backend.gate.set()
    await made.runner.close()
