"""The application over a fake backend, without a socket."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.context import RequestContext
from app.main import build_app
from app.settings import Settings
from tests.served import Served, ServedOptions, serve_fake


@dataclass
class Api:
    """A client and the parts a test looks into."""

    client: httpx.AsyncClient
    app: RequestContext
    served: Served

    async def embed(self, body: Any, **headers: str) -> httpx.Response:
        """POST a body to /v1/embeddings."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post("/v1/embeddings", json=body, headers=named)


MakeApi = Callable[..., Api]


@pytest.fixture
async def make_api(tiny_folder: Path) -> AsyncIterator[MakeApi]:
    """Build applications with settings of the test's own; all are closed at its end."""
    made: list[Api] = []

    def make(options: ServedOptions | None = None, **settings: Any) -> Api:
        app = build_app(Settings(**settings))
        served = serve_fake(tiny_folder / "tokenizer.json", options, also_tell=app.state.metrics)
        for model in served.service.models.all():
            app.state.metrics.model_served(model)
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
