"""Cores of several devices: who gets a call, and what happens when one goes."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.engine.core.ports import Traits
from nestvec.engine.types import RawVectors
from nestvec.engine.vectors.pooler import Outputs
from nestvec.errors import NotReadyError
from nestvec.ipc import engine_client as client
from nestvec.ipc.engine_client import Link, LinkLostError, RemoteCore
from nestvec.ipc.frames import Frame, items_of, vectors_frame
from nestvec.ipc.load_balancer import Links
from nestvec.ipc.status_page import Flight
from typing_extensions import override

from tests.support.fakes import item

TRAITS = Traits("cuda", 8, gives_tokens=True, layers=0, max_batch_tokens=64)


class FakeLink(Link):
    """A core that answers at once, or holds its calls, or is away."""

    def __init__(self, folder: Path, number: int) -> None:
        super().__init__(folder / f"{number}.sock", Flight(folder / f"{number}.flight", b"s" * 32))
        self.waiting = 0.0
        self.calls: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.loads: list[str] = []

    def come(self) -> None:
        """It is there."""
        self._up.set()
        self.on_change()

    def go(self) -> None:
        """It has died."""
        self._up.clear()
        self.on_change()

    @override
    def queue(self) -> tuple[float, float, float]:
        """As set."""
        return self.waiting, 0.001, 1000.0

    @override
    async def call(self, make: Any) -> Frame:
        """Vectors of ones, once the gate is open; lost if it has died by then."""
        frame = make(0)
        items = items_of(Frame(frame.head, frame.body))
        self.calls.append(sum(one.tokens for one in items))
        await self.gate.wait()
        if not self.is_up:
            raise LinkLostError
        ones = np.ones((len(items), 8), np.float32)
        return vectors_frame(0, RawVectors(ones, (1,) * len(items), 0.0, 0.0))

    @override
    async def load(self, model: str) -> Traits:
        """At once."""
        self.loads.append(model)
        return TRAITS


@pytest.fixture
def cores(tmp_path: Path) -> list[FakeLink]:
    """Two, both there."""
    made = [FakeLink(tmp_path, number) for number in range(2)]
    for one in made:
        one.come()
    return made


def remote(cores: list[FakeLink]) -> tuple[Links, RemoteCore]:
    """A model over both."""
    links = Links(cores)
    for one in cores:
        one.on_change()
    return links, RemoteCore(links, "m", Outputs("mean"), TRAITS)


async def test_a_call_goes_where_least_is_to_be_done(cores: list[FakeLink]) -> None:
    """By what every front has sent, as the core notes it, and by what this one has just sent."""
    _, core = remote(cores)
    cores[0].waiting = 50.0
    await core.submit([item(1, 2, 3)])
    assert (cores[0].calls, cores[1].calls) == ([], [3])
    cores[0].waiting = 0.0
    for one in cores:
        one.gate.clear()
    tasks = [asyncio.create_task(core.submit([item(*range(1, 11))])) for _ in range(6)]
    await asyncio.sleep(0)
    assert len(cores[0].calls) == 3
    assert len(cores[1].calls) == 1 + 3
    for one in cores:
        one.gate.set()
    await asyncio.gather(*tasks)


async def test_while_one_is_away_the_other_serves(cores: list[FakeLink]) -> None:
    """And readiness stays until both are."""
    links, core = remote(cores)
    changes: list[bool] = []
    links.tell(lambda: changes.append(links.is_up), lambda _: None)
    cores[0].go()
    for _ in range(3):
        await core.submit([item(1)])
    assert not cores[0].calls
    cores[1].go()
    cores[1].come()
    assert changes == [True, False, True]


async def test_a_call_stays_with_a_core_that_dies_and_comes_back(
    cores: list[FakeLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its input may be what killed it: the next engine there knows, another does not."""
    monkeypatch.setattr(client, "RECONNECT_S", 0.001)
    _, core = remote(cores)
    cores[1].waiting = 1.0
    cores[0].gate.clear()
    task = asyncio.create_task(core.submit([item(1, 2)]))
    await asyncio.sleep(0)
    cores[0].go()
    cores[0].gate.set()
    await asyncio.sleep(0.01)
    assert not task.done()
    cores[0].come()
    await task
    assert cores[0].calls == [2, 2]
    assert not cores[1].calls


async def test_where_none_is_there_calls_wait_and_then_fail(
    cores: list[FakeLink], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a time to come again."""
    monkeypatch.setattr(client, "PATIENCE_S", 0.02)
    links, core = remote(cores)
    for one in cores:
        one.go()
    with pytest.raises(NotReadyError):
        await core.submit([item(1)])
    with pytest.raises(LinkLostError):
        await links.ask("unload", model="m")


async def test_a_model_is_loaded_by_every_core_that_is_there(cores: list[FakeLink]) -> None:
    """Others load it when the first call for it comes."""
    links, _ = remote(cores)
    assert await links.load("m") == TRAITS
    assert [one.loads for one in cores] == [["m"], ["m"]]
