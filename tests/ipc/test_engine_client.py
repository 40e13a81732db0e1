"""A front and a core over a real socket, the core in a process that an input can kill."""

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from nestvec.engine.types import Item
from nestvec.engine.vectors.pooler import Outputs
from nestvec.errors import (
    BackendError,
    DeadlineError,
    NotReadyError,
    QuarantinedError,
    QueueFullError,
)
from nestvec.ipc.engine_client import Link, RemoteCore
from nestvec.ipc.status_page import Flight

from tests.ipc.deadly_core import DEADLY_ID, SECRET, run
from tests.support.fakes import BAD_ID, fake_vector, item
from tests.support.served import SPEC

pytestmark = pytest.mark.process


@dataclass
class Pair:
    """A link, and the process at its other end."""

    folder: Path
    tokenizer: Path
    link: Link
    deaths: int = 0
    process: BaseProcess | None = None
    keeper: "asyncio.Task[None] | None" = None
    changes: list[bool] = field(default_factory=list)

    def start(self) -> None:
        """A new core."""
        spawn = multiprocessing.get_context("spawn")
        self.process = spawn.Process(target=run, args=(self.folder, self.tokenizer))
        self.process.start()

    async def keep(self) -> None:
        """Start it again whenever it has died."""
        while True:
            await asyncio.sleep(0.02)
            if self.process is not None and not self.process.is_alive():
                self.deaths += 1
                self.start()


@pytest.fixture
async def pair(tmp_path: Path, tiny_folder: Path) -> AsyncIterator[Pair]:
    """Up."""
    link = Link(tmp_path / "sock", Flight(tmp_path / "flight", SECRET))
    made = Pair(tmp_path, tiny_folder / "tokenizer.json", link)
    link.on_change = lambda: made.changes.append(link.is_up)
    made.start()
    link.start()
    await link.until_up(60)
    yield made
    if made.keeper is not None:
        made.keeper.cancel()
    await link.close()
    if made.process is not None:
        made.process.kill()
        made.process.join()


async def remote(pair: Pair) -> RemoteCore:
    """Its model's core."""
    traits = await pair.link.load(SPEC.name)
    assert (traits.provider, traits.hidden_size, traits.layers) == ("cpu", 8, 3)
    return RemoteCore(pair.link, SPEC.name, Outputs("mean"), traits)


async def check(core: RemoteCore, *ids: int) -> None:
    """Its vector is right."""
    raw = await core.submit([item(*ids)])
    np.testing.assert_array_equal(raw.vectors[0], fake_vector(ids))


async def test_vectors_and_errors_come_over(pair: Pair) -> None:
    """As from a core in the same process; a cancelled call is none."""
    core = await remote(pair)
    await asyncio.gather(*(check(core, n, n + 1) for n in range(20, 60)))
    with pytest.raises(BackendError) as caught:
        await core.submit([item(1), item(BAD_ID, index=1)])
    assert caught.value.input_index == 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005):
            await core.submit([item(*range(20, 30)) for _ in range(50)])
    await check(core, 5)


async def test_a_poisoned_input_ends_only_its_own_call(pair: Pair) -> None:
    """It kills the engine, is found out, and is quarantined; all others get their vectors in the end."""
    core = await remote(pair)
    pair.keeper = asyncio.create_task(pair.keep())
    neighbours = [asyncio.create_task(check(core, n, n + 1)) for n in range(20, 80)]
    with pytest.raises(QuarantinedError) as caught:
        await core.submit([item(1), item(2, DEADLY_ID, index=1)])
    assert caught.value.input_index == 1
    assert caught.value.is_permanent
    await asyncio.gather(*neighbours)
    deaths = pair.deaths
    assert 2 <= deaths <= 4
    began = time.monotonic()
    with pytest.raises(QuarantinedError):
        await core.submit([item(2, DEADLY_ID)])
    assert time.monotonic() - began < 1
    await check(core, 5)
    assert pair.deaths == deaths
    assert {pair.changes[0], pair.changes[-1]} == {True}
    assert False in pair.changes


async def test_calls_end_where_the_engine_stays_away(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their deadline, or by patience: retriably."""
    core = await remote(pair)
    assert pair.process is not None
    pair.process.kill()
    pair.process.join()
    while pair.link.is_up:
        await asyncio.sleep(0.01)
    monkeypatch.setattr("nestvec.ipc.engine_client.PATIENCE_S", 0.2)
    with pytest.raises(NotReadyError) as caught:
        await core.submit([item(1)])
    assert caught.value.retry_after_s >= 1
    late = Item(item(1).ids, deadline_s=time.monotonic() - 1)
    with pytest.raises(DeadlineError):
        await core.submit([late])


async def test_a_full_queue_is_known_before_anything_is_sent(pair: Pair) -> None:
    """From what the core noted last."""
    core = await remote(pair)
    core.check_room(10**6, "")
    pair.link.flight.note_queue(900, 0.01, 1000)
    core.check_room(100, "")
    with pytest.raises(QueueFullError) as caught:
        core.check_room(101, "")
    assert 1 <= caught.value.retry_after_s <= 120
