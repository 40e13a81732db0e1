"""Engine processes of several devices: which of them gets a call, and what happens when one goes."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.backend import BackendInfo
from nestvec.engine.results import RawVectors
from nestvec.engine.types import Layout
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import NotReadyError
from nestvec.ipc import remote_core
from nestvec.ipc.engine_client import EngineClient, EngineLostError
from nestvec.ipc.frames import Frame, submission_of, vectors_frame
from nestvec.ipc.load_balancer import EngineClientPool
from nestvec.ipc.remote_core import RemoteCore
from nestvec.ipc.status_page import QueueLoad, StatusPage
from typing_extensions import override

from tests.support.fakes import item, submission

INFO = BackendInfo(Layout.PACKED, "cuda", 8, gives_tokens=True)


class FakeClient(EngineClient):
    """The client of an engine that answers at once, or holds its calls, or is away."""

    def __init__(self, folder: Path, number: int) -> None:
        super().__init__(folder / f"{number}.sock", StatusPage(folder / f"{number}.flight"))
        self.waiting = 0.0
        self.calls: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.loads: list[str] = []

    def come(self) -> None:
        """Let the engine come up."""
        self._up.set()
        self.on_change()

    def go(self) -> None:
        """Let the engine die."""
        self._up.clear()
        self.on_change()

    @override
    def queue_load(self) -> QueueLoad:
        """Return the load that is set."""
        return QueueLoad(self.waiting, 0.001, 1000.0)

    @override
    async def call(self, make: Any) -> Frame:
        """Answer with vectors of ones once the gate is open; the engine is lost if it has died by then."""
        frame = make(0)
        submission = submission_of(frame)
        self.calls.append(submission.tokens)
        await self.gate.wait()
        if not self.is_up:
            raise EngineLostError
        items = len(submission.items)
        ones = np.ones((items, 8), np.float32)
        return vectors_frame(0, RawVectors(ones, (1,) * items, 0.0, 0.0))

    @override
    async def load(self, model: str) -> tuple[BackendInfo, int]:
        """Load a model at once."""
        self.loads.append(model)
        return INFO, 64


@pytest.fixture
def clients(tmp_path: Path) -> list[FakeClient]:
    """Return the clients of two engines, both there."""
    clients = [FakeClient(tmp_path, number) for number in range(2)]
    for client in clients:
        client.come()
    return clients


def remote(clients: list[FakeClient]) -> tuple[EngineClientPool, RemoteCore]:
    """Return the pool of the clients, and a model's core over it."""
    engines = EngineClientPool(clients)
    for client in clients:
        client.on_change()
    return engines, RemoteCore(engines, "m", Pooler("mean"), INFO, 64)


async def test_a_call_goes_where_least_is_to_be_done(clients: list[FakeClient]) -> None:
    """What counts is what waits in the engine, as it notes it, and what this process has in flight there."""
    _, core = remote(clients)
    clients[0].waiting = 50.0
    await core.submit(submission(item(1, 2, 3)))
    assert (clients[0].calls, clients[1].calls) == ([], [3])
    clients[0].waiting = 0.0
    for client in clients:
        client.gate.clear()
    tasks = [asyncio.create_task(core.submit(submission(item(*range(1, 11))))) for _ in range(6)]
    await asyncio.sleep(0)
    assert len(clients[0].calls) == 3
    assert len(clients[1].calls) == 1 + 3
    for client in clients:
        client.gate.set()
    await asyncio.gather(*tasks)


async def test_while_one_is_away_the_other_serves(clients: list[FakeClient]) -> None:
    """While one engine is away the other one serves, and the pool counts as up until both are away."""
    engines, core = remote(clients)
    changes: list[bool] = []
    engines.subscribe(lambda: changes.append(engines.is_up), lambda _: None)
    clients[0].go()
    for _ in range(3):
        await core.submit(submission(item(1)))
    assert not clients[0].calls
    clients[1].go()
    clients[1].come()
    assert changes == [True, False, True]


async def test_a_call_stays_with_a_core_that_dies_and_comes_back(
    clients: list[FakeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call's input may be what killed the engine: the next one there knows that, another does not."""
    monkeypatch.setattr(remote_core, "RECONNECT_S", 0.001)
    _, core = remote(clients)
    clients[1].waiting = 1.0
    clients[0].gate.clear()
    task = asyncio.create_task(core.submit(submission(item(1, 2))))
    await asyncio.sleep(0)
    clients[0].go()
    clients[0].gate.set()
    await asyncio.sleep(0.01)
    assert not task.done()
    clients[0].come()
    await task
    assert clients[0].calls == [2, 2]
    assert not clients[1].calls


async def test_where_none_is_there_calls_wait_and_then_fail(
    clients: list[FakeClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no engine is there calls wait for one, and then fail as retriable."""
    monkeypatch.setattr(remote_core, "MAX_ENGINE_WAIT_S", 0.02)
    engines, core = remote(clients)
    for client in clients:
        client.go()
    with pytest.raises(NotReadyError):
        await core.submit(submission(item(1)))
    with pytest.raises(EngineLostError):
        await engines.ask("unload", model="m")


async def test_a_model_is_loaded_by_every_core_that_is_there(clients: list[FakeClient]) -> None:
    """Every engine that is there loads the model."""
    engines, _ = remote(clients)
    assert await engines.load("m") == (INFO, 64)
    assert [client.loads for client in clients] == [["m"], ["m"]]
