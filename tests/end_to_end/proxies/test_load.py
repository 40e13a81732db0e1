"""Two real servers behind each proxy of deploy/proxies, killed and restarted under load: no request fails."""

import asyncio
import base64
import itertools
import signal
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.end_to_end.proxies.caller import Caller
from tests.end_to_end.proxies.running import (
    ProxyKind,
    RunningProxy,
    free_port,
    running_proxy,
)
from tests.support.server import RunningServer, starting_server, wait_until_ready

# Three starts of a server beside the load: half a minute, or some minutes on a busy machine.
pytestmark = [
    pytest.mark.model,
    pytest.mark.process,
    pytest.mark.proxies,
    pytest.mark.timeout(1_200),
]
REQUESTS = 5_000
CALLERS = 16
FORM_TYPE = "multipart/form-data; boundary=b"
PROBE = "Matryoshka dolls nest."
# How long an orchestrator waits between a server that is ready and the next one that it stops.
SETTLE_S = 1.0


@dataclass
class Load:
    """Callers that go on until they are told to stop, and what they have met.

    Attributes:
        proxy: What they call.
        vector: The vector of the probe [D], which is the first text of each request.
        stop: Set to end them.
        outcomes: How often each status came, or which error instead.
        slowest_s: The longest time that an answer took.
    """

    proxy: RunningProxy
    vector: np.ndarray
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0

    async def call(self, number: int) -> None:
        """Call as one caller: one request after the other, each of one to sixteen texts."""
        async with Caller(self.proxy.port) as caller:
            sent = 0
            while not self.stop.is_set():
                sent += 1
                count = 1 + (number + sent) % 16
                texts = [PROBE, *(f"text {number} {sent} {n}" for n in range(1, count))]
                began_s = time.monotonic()
                try:
                    answer = await caller.post(
                        "/v1/embeddings", {"input": texts, "encoding_format": "base64"}
                    )
                except (OSError, EOFError) as error:
                    self.outcomes[type(error).__name__] += 1
                    continue
                self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
                self.outcomes[str(answer.status)] += 1
                if answer.status == httpx.codes.OK:
                    self._check(answer.body, count)

    async def reached(self, count: int) -> None:
        """Wait until so many requests have been answered."""
        while self.outcomes.total() < count:
            await asyncio.sleep(0.02)

    def _check(self, body: bytes, count: int) -> None:
        rows = httpx.Response(200, content=body).json()["data"]
        vector = np.frombuffer(base64.b64decode(rows[0]["embedding"]), "<f4")
        if len(rows) != count or np.abs(vector - self.vector).max() > 1e-5:
            self.outcomes["wrong answer"] += 1


@dataclass
class Uploads:
    """A caller that makes a file after the other, each of a name of its own.

    Attributes:
        proxy: What it calls.
        made: The names of which it was told that they are there.
        failures: What it met instead.
    """

    proxy: RunningProxy
    made: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Make files until it is told to stop."""
        async with Caller(self.proxy.port) as caller:
            for number in itertools.count():
                if stop.is_set():
                    return
                name = f"file-{number}.jsonl"
                try:
                    answer = await caller.post("/v1/files", _form(name), FORM_TYPE)
                except (OSError, EOFError) as error:
                    self.failures.append(type(error).__name__)
                    continue
                if answer.status == httpx.codes.OK:
                    self.made.append(name)
                else:
                    self.failures.append(str(answer.status))
                await asyncio.sleep(0.02)


def _form(name: str) -> bytes:
    line = b'{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"input": "a"}}'
    purpose = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    head = f'--b\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return purpose + head.encode() + line + b"\r\n--b--\r\n"


@dataclass
class Fleet:
    """Two servers on ports that they keep."""

    folder: Path
    stack: ExitStack
    ports: tuple[int, int]
    servers: list[RunningServer] = field(default_factory=list)

    def start(self, index: int) -> RunningServer:
        """Start a server on its port, with settings as they are by default."""
        folder = self.folder / f"server-{index}"
        folder.mkdir(exist_ok=True)
        server = self.stack.enter_context(
            starting_server(
                folder,
                model="static",
                port=self.ports[index],
                drain_grace_s=1.0,
                trusted_hosts="127.0.0.1",
                trusted_proxies="127.0.0.1",
            )
        )
        wait_until_ready(server)
        return server

    async def restart(self, index: int, how: signal.Signals) -> int:
        """End a server by a signal and start it again; return its exit status."""
        process = self.servers[index].process
        process.send_signal(how)
        status: int = await asyncio.to_thread(process.wait, 60)
        self.servers[index] = await asyncio.to_thread(self.start, index)
        return status

    def file_names(self) -> Counter[str]:
        """Return how often each name is among the files of both servers."""
        names: Counter[str] = Counter()
        for server in self.servers:
            listed = httpx.get(f"{server.url}/v1/files", params={"limit": 10_000}).json()
            assert not listed["has_more"]
            names.update(row["filename"] for row in listed["data"])
        return names


async def test_no_request_fails(kind: ProxyKind, tmp_path: Path) -> None:
    """One kill -9, a restart and a rolling restart of both servers under load: every answer is 200, and right.

    In the rolling restart files are uploaded, too: each is there once, and none is lost.
    """
    with ExitStack() as stack:
        fleet = Fleet(tmp_path, stack, (free_port(), free_port()))
        for index in (0, 1):
            fleet.servers.append(await asyncio.to_thread(fleet.start, index))
        proxy = stack.enter_context(running_proxy(kind, kind.binary() or "", tmp_path, fleet.ports))
        body = {"input": PROBE, "encoding_format": "float"}
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{fleet.servers[0].url}/v1/embeddings", json=body)
        load = Load(proxy, np.array(answer.json()["data"][0]["embedding"], np.float32))
        callers = [asyncio.create_task(load.call(number)) for number in range(CALLERS)]
        uploads = Uploads(proxy)
        try:
            await load.reached(300)
            assert await fleet.restart(0, signal.SIGKILL) == -signal.SIGKILL
            await asyncio.sleep(SETTLE_S)
            callers.append(asyncio.create_task(uploads.run(load.stop)))
            for index in (0, 1):
                assert await fleet.restart(index, signal.SIGTERM) == 0
                await asyncio.sleep(SETTLE_S)
            await load.reached(REQUESTS)
        finally:
            load.stop.set()
            await asyncio.gather(*callers)
        print(f"\n{proxy.version}: {dict(load.outcomes)}, slowest {load.slowest_s:.2f} s")
        print(f"{len(uploads.made)} files, failures {uploads.failures}")
        assert set(load.outcomes) == {"200"}
        assert load.outcomes["200"] >= REQUESTS
        assert await asyncio.to_thread(fleet.file_names) == Counter(uploads.made)
        assert uploads.made
        assert not uploads.failures
