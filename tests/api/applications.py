"""Applications without a socket, and helpers for tests to look into them."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from nestvec.api.batch.batch_lines import BatchLines
from nestvec.api.request_context import RequestContextMiddleware
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.types import Truncation
from nestvec.jobs.runner import JobRunner
from nestvec.jobs.store import JobStore
from prometheus_client.parser import text_string_to_metric_families

from tests.support.fakes import fake_vector
from tests.support.served import Served

URL = "/v1/embeddings"
DAY_S = 86_400


@dataclass
class Api:
    """An application, a client of it, and the fakes behind it that a test looks into."""

    client: httpx.AsyncClient
    app: RequestContextMiddleware
    served: Served

    async def embed(self, body: Any, **headers: str) -> httpx.Response:
        """POST a body to /v1/embeddings."""
        dashed = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post("/v1/embeddings", json=body, headers=dashed)


MakeApi = Callable[..., Api]


class Clock:
    """A clock in Unix seconds that a test may set ahead."""

    ahead_s = 0.0

    def __call__(self) -> float:
        """Return the time, with what the test has added."""
        return time.time() + self.ahead_s


class Jobs:
    """Files and batches of an application, in a data folder of their own."""

    model_wait_s = 60.0

    def __init__(self, api: Api, folder: Path, clock: Clock) -> None:
        self.api, self.folder, self.clock = api, folder, clock
        self.client = api.client

    def open(self) -> None:
        """Open the data folder and start the batches, as a server's start does."""
        state = self.api.app.state
        store = JobStore(self.folder, self.clock)
        self.runner = JobRunner(
            store,
            BatchLines(state),
            state.options.jobs,
            observer=state.metrics.jobs,
            model_wait_s=self.model_wait_s,
        )
        state.offer_jobs(self.runner)
        self.runner.start()

    async def upload(self, content: bytes, **form: str) -> httpx.Response:
        """POST a file."""
        fields = {"purpose": "batch", **form}
        name = fields.pop("filename", "in.jsonl")
        return await self.client.post("/v1/files", data=fields, files={"file": (name, content)})

    async def create(self, content: bytes, **body: Any) -> dict[str, Any]:
        """Upload a file and create a batch of it."""
        file = (await self.upload(content)).json()
        request = {"input_file_id": file["id"], "endpoint": URL, "completion_window": "24h", **body}
        answer = await self.client.post("/v1/batches", json=request)
        assert answer.status_code == 200, answer.text
        batch: dict[str, Any] = answer.json()
        return batch

    async def until(
        self, batch_id: str, done: Callable[[dict[str, Any]], bool] | None = None
    ) -> dict[str, Any]:
        """Poll until a batch has ended, or until another condition holds."""
        is_done = done or (lambda b: b["status"] in ("completed", "failed", "expired", "cancelled"))
        async with asyncio.timeout(30):
            while not is_done(batch := (await self.client.get(f"/v1/batches/{batch_id}")).json()):
                await asyncio.sleep(0.01)
        return dict(batch)

    async def rows(self, file_id: str) -> dict[str, Any]:
        """Return the lines of an output file by custom id, and check that no id comes twice."""
        content = (await self.client.get(f"/v1/files/{file_id}/content")).content
        lines = [json.loads(line) for line in content.splitlines()]
        rows = {line["custom_id"]: line for line in lines}
        assert len(rows) == len(lines)
        return rows


def unit_vector(api: Api, text: str, dimensions: int | None = None) -> list[float]:
    """Return the vector of a text, cut to `dimensions` and of unit length."""
    (encoded,) = api.served.tokenizer.encode_texts([text], TokenizeOptions(Truncation.END))
    vector = fake_vector(encoded.ids)[:dimensions]
    scaled: list[float] = (vector / np.linalg.norm(vector)).tolist()
    return scaled


def line(custom_id: str, inputs: Any = "alpha", **body: Any) -> bytes:
    """Return a line of a batch's input file."""
    row = {"custom_id": custom_id, "method": "POST", "url": URL, "body": {"input": inputs, **body}}
    return json.dumps(row).encode() + b"\n"


async def scrape(api: Api) -> dict[str, float]:
    """Return all samples of /metrics by name and labels."""
    text = (await api.client.get("/metrics")).text
    families = text_string_to_metric_families(text)
    return {sample(s.name, **s.labels): s.value for family in families for s in family.samples}


def sample(name: str, **labels: str) -> str:
    """Return the key of a sample: its name and labels."""
    return name + repr(sorted(labels.items()))
