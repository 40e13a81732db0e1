"""A client and an engine process over a real socket; an input can kill the engine process."""

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from nestvec.engine.types import ItemOptions, Priority
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import (
    BackendError,
    DeadlineError,
    NotReadyError,
    QuarantinedError,
    QueueFullError,
)
from nestvec.ipc.engine_client import EngineClient
from nestvec.ipc.remote_core import REFUSED_S, RemoteCore
from nestvec.ipc.status_page import StatusPage

from tests.ipc.deadly_core import DEADLY_ID, run
from tests.support.fakes import BAD_ID, fake_vector, item, submission
from tests.support.served import SPEC

pytestmark = pytest.mark.process


@dataclass
class Pair:
    """A client, and the engine process at its other end."""

    folder: Path
    tokenizer: Path
    client: EngineClient
    deaths: int = 0
    process: BaseProcess | None = None
    keeper: "asyncio.Task[None] | None" = None
    changes: list[bool] = field(default_factory=list)

    def start(self) -> None:
        """Start a new engine process."""
        spawn = multiprocessing.get_context("spawn")
        self.process = spawn.Process(target=run, args=(self.folder, self.tokenizer))
        self.process.start()

    async def keep(self) -> None:
        """Start the engine process again whenever it has died."""
        while True:
            await asyncio.sleep(0.02)
            if self.process is not None and not self.process.is_alive():
                self.deaths += 1
                self.start()


@pytest.fixture
async def pair(tmp_path: Path, tiny_folder: Path) -> AsyncIterator[Pair]:
    """Return a client whose engine process is up."""
    client = EngineClient(tmp_path / "sock", StatusPage(tmp_path / "flight"))
    pair = Pair(tmp_path, tiny_folder / "tokenizer.json", client)
    client.on_change = lambda: pair.changes.append(client.is_up)
    pair.start()
    client.start()
    await client.wait_until_up(60)
    yield pair
    if pair.keeper is not None:
        pair.keeper.cancel()
    await client.close()
    if pair.process is not None:
        pair.process.kill()
        pair.process.join()


async def remote(pair: Pair) -> RemoteCore:
    """Return its model's core."""
    info, max_batch_tokens = await pair.client.load(SPEC.name)
    assert (info.provider, info.hidden_size, info.layers) == ("cpu", 8, 3)
    return RemoteCore(pair.client, SPEC.name, Pooler("mean"), info, max_batch_tokens)


async def check(core: RemoteCore, *ids: int) -> None:
    """Check that a core gives the right vector of these ids."""
    raw = await core.submit(submission(item(*ids)))
    np.testing.assert_array_equal(raw.vectors[0], fake_vector(ids))


async def test_vectors_and_errors_come_over(pair: Pair) -> None:
    """Vectors and errors arrive as from a core in the same process, and a cancelled call harms no other."""
    core = await remote(pair)
    await asyncio.gather(*(check(core, n, n + 1) for n in range(20, 60)))
    with pytest.raises(BackendError) as caught:
        await core.submit(submission(item(1), item(BAD_ID, index=1)))
    assert caught.value.input_index == 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005):
            await core.submit(submission(*[item(*range(20, 30)) for _ in range(50)]))
    await check(core, 5)


async def test_a_poisoned_input_ends_only_its_own_call(pair: Pair) -> None:
    """An input that kills the engine is found out and quarantined; all others get their vectors in the end."""
    core = await remote(pair)
    pair.keeper = asyncio.create_task(pair.keep())
    neighbours = [asyncio.create_task(check(core, n, n + 1)) for n in range(20, 80)]
    with pytest.raises(QuarantinedError) as caught:
        await core.submit(submission(item(1), item(2, DEADLY_ID, index=1)))
    assert caught.value.input_index == 1
    assert caught.value.is_permanent
    await asyncio.gather(*neighbours)
    deaths = pair.deaths
    assert 2 <= deaths <= 4
    began = time.monotonic()
    with pytest.raises(QuarantinedError):
        await core.submit(submission(item(2, DEADLY_ID)))
    assert time.monotonic() - began < 1
    await check(core, 5)
    assert pair.deaths == deaths
    assert {pair.changes[0], pair.changes[-1]} == {True}
    assert False in pair.changes


async def test_calls_end_where_the_engine_stays_away(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the engine stays away a call ends with its deadline, or after some time as retriable."""
    core = await remote(pair)
    assert pair.process is not None
    pair.process.kill()
    pair.process.join()
    while pair.client.is_up:
        await asyncio.sleep(0.01)
    monkeypatch.setattr("nestvec.ipc.remote_core.MAX_ENGINE_WAIT_S", 0.2)
    with pytest.raises(NotReadyError) as caught:
        await core.submit(submission(item(1)))
    assert caught.value.retry_after_s >= 1
    with pytest.raises(DeadlineError):
        await core.submit(submission(item(1), deadline_s=time.monotonic() - 1))


async def test_a_full_queue_is_known_before_anything_is_sent(pair: Pair) -> None:
    """A call that the engine's queue has no room for is refused by what the engine noted last."""
    core = await remote(pair)
    with core.expecting(10**6, ItemOptions()):
        pair.client.status_page.note_queue(900, 0.01, 1000)
    with core.expecting(100, ItemOptions()):
        pass
    with pytest.raises(QueueFullError) as caught, core.expecting(101, ItemOptions()):
        pass
    assert 1 <= caught.value.retry_after_s <= 120


async def test_what_the_engine_has_just_refused_is_refused_here(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a refusal for its wait, calls of its class and key are refused unsent for a moment; others are not."""
    core = await remote(pair)
    now_s = [100.0]
    object.__setattr__(core, "clock", lambda: now_s[0])

    async def refuse(*_: object) -> NoReturn:
        raise QueueFullError(
            "long", retry_after_s=1.0, reason="wait_too_long", own_s=2.0, waiting_s=20.0
        )

    monkeypatch.setattr(EngineClient, "call", refuse)
    with pytest.raises(QueueFullError):
        await core.submit(submission(item(1), key_id="flood"))
    waits_s = []
    for _ in range(8):
        with (
            pytest.raises(QueueFullError) as caught,
            core.expecting(1, ItemOptions(key_id="flood")),
        ):
            pass
        waits_s.append(caught.value.retry_after_s)
    assert waits_s[-1] > waits_s[0]  # told to come one after the other
    with core.expecting(1, ItemOptions(key_id="other")):
        pass
    with core.expecting(1, ItemOptions(key_id="flood", priority=Priority.BULK)):
        pass
    now_s[0] += REFUSED_S
    with core.expecting(1, ItemOptions(key_id="flood")):
        pass
    with pytest.raises(QueueFullError):  # a long text waits for what a query passes
        await core.submit(submission(item(*[1] * 8000), key_id="flood"))
    with core.expecting(20, ItemOptions(key_id="flood")):
        pass
    with pytest.raises(QueueFullError), core.expecting(2000, ItemOptions(key_id="flood")):
        pass
