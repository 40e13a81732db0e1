"""The engine processes of several devices behind one connection: each call goes to the one that has least to do.

A call stays with its engine where that dies, so that an input that kills engines is seen to by the engine that it
killed and does not go through them all. Where the engine stays away the call fails, as every call that waits for one
does.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nestvec.engine.backend import BackendInfo
from nestvec.errors import NotReadyError
from nestvec.ipc.engine_client import (
    ChangeListener,
    EngineClient,
    EngineLostError,
    PushListener,
)
from nestvec.ipc.frames import Frame
from nestvec.ipc.status_page import QueueLoad


@dataclass(slots=True)
class EngineClientPool:
    """Connections to the engine processes of several devices.

    Attributes:
        clients: A client of each engine process.
    """

    clients: Sequence[EngineClient]
    _any_up: asyncio.Event = field(default_factory=asyncio.Event)
    _on_change: ChangeListener | None = None
    _in_flight_tokens: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Listen for engines that come or go."""
        for client in self.clients:
            client.on_change = self._changed

    @property
    def is_up(self) -> bool:
        """Whether any engine process is there."""
        return any(client.is_up for client in self.clients)

    def subscribe(self, on_change: ChangeListener, on_push: PushListener) -> None:
        """Set who is told that an engine has come or gone, and who is given the frames that one sends unasked."""
        self._on_change = on_change
        for client in self.clients:
            client.on_push = on_push

    def start(self) -> None:
        """Connect to all engine processes."""
        for client in self.clients:
            client.start()

    async def close(self) -> None:
        """Disconnect from all engine processes."""
        for client in self.clients:
            await client.close()

    async def wait_until_up(self, within_s: float) -> None:
        """Wait until any engine process is there.

        Raises:
            NotReadyError: None comes in time.
        """
        try:
            async with asyncio.timeout(within_s):
                await self._any_up.wait()
        except TimeoutError:
            raise NotReadyError("The engine is restarting.", retry_after_s=2.0) from None

    async def load(self, model: str) -> tuple[BackendInfo, int]:
        """Have a model loaded by every engine that is there; those that come later load it when a call names it.

        Raises:
            NestvecError: The model cannot be loaded.
        """
        first = self._least_busy()
        others = [client for client in self.clients if client.is_up and client is not first]
        loaded = await first.load(model)
        await asyncio.gather(*(client.load(model) for client in others), return_exceptions=True)
        return loaded

    async def ask(self, kind: str, **fields: Any) -> Frame:  # noqa: ANN401 - JSON
        """Ask the same of every engine that is there, and return the first one's answer.

        Raises:
            EngineLostError: None is there, or one went away.
            NestvecError: An engine answers with it.
        """
        up = [client for client in self.clients if client.is_up]
        if not up:
            raise EngineLostError
        answers = await asyncio.gather(*(client.ask(kind, **fields) for client in up))
        return answers[0]

    def queue_load(self) -> QueueLoad:
        """Return how full the queue is that a call would go to."""
        return self._least_busy().queue_load()

    @contextmanager
    def client_for(self, tokens: int) -> Iterator[EngineClient]:
        """Give the client for a call of so many tokens, which count as its engine's until the call has ended."""
        client = self._least_busy()
        in_flight = self._in_flight_tokens
        in_flight[id(client)] = in_flight.get(id(client), 0) + tokens
        try:
            yield client
        finally:
            in_flight[id(client)] -= tokens

    def _least_busy(self) -> EngineClient:
        """Choose among the engines that are there, by what waits there and what this process has in flight."""
        up = [client for client in self.clients if client.is_up] or self.clients
        in_flight = self._in_flight_tokens
        return min(up, key=lambda c: c.queue_load().waiting_tokens + in_flight.get(id(c), 0))

    def _changed(self) -> None:
        if self.is_up:
            self._any_up.set()
        else:
            self._any_up.clear()
        if self._on_change is not None:
            self._on_change()
