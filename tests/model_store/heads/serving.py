"""Model folders of the cases, served by a real engine without a socket."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from nestvec.assembly.service import build_local_service
from nestvec.config.settings import Settings
from nestvec.engine.observer import NullObserver
from nestvec.engine.service import EmbeddingService
from nestvec.errors import FormatError
from nestvec.main import build_app
from safetensors.numpy import save_file

from tests.export.families.weights import random_weights
from tests.support.tiny import write_json, write_tokenizer

HERE = Path(__file__).parent
STORED = json.loads((HERE / "expected.json").read_text())
CASES: dict[str, Any] = STORED["cases"]


def write_case(folder: Path, name: str) -> dict[str, Any]:
    """Write a case's folder as Hugging Face has it; return what is expected of it."""
    case: dict[str, Any] = CASES[name]
    write_json(folder / "config.json", case["config"])
    write_tokenizer(folder / "tokenizer.json")
    tensors = random_weights(case["tensors"], STORED["seed"])
    save_file(tensors, folder / "model.safetensors")
    return case


@dataclass(frozen=True)
class Opened:
    """A served model."""

    client: httpx.AsyncClient
    service: EmbeddingService

    async def post(self, path: str, body: Any) -> Any:
        """Post a body and return the answer's JSON."""
        answer = await self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def opened(folder: Path, **settings: Any) -> AsyncIterator[Opened]:
    """Export a folder and serve it."""
    chosen_settings = Settings(model=str(folder), cache_dir=folder.parent / "cache", **settings)
    app = build_app(chosen_settings)
    service = build_local_service(chosen_settings, NullObserver())
    for slot in service.models.all():
        app.state.metrics.model_changed(slot)
    app.state.become_ready(service)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield Opened(client, service)
    service.close()


async def check_refusal(folder: Path, words: Sequence[str]) -> None:
    """Check that a folder is refused, and that the error has all of these words: the file, and the field."""
    with pytest.raises(FormatError) as caught:
        async with opened(folder):
            pass
    for part in words:
        assert part in str(caught.value)
