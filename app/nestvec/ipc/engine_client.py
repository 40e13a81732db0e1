"""An HTTP process's end: a connection to an engine process that comes back.

When the engine process dies its calls are not lost: each is sent again to the next one, which runs alone whatever was
running when the last one died. A call ends with its deadline, or with NotReadyError where the engine stays away.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nestvec.engine.backend import BackendInfo
from nestvec.errors import NotReadyError
from nestvec.ipc.frames import (
    BUFFER_BYTES,
    Frame,
    error_of,
    loaded_of,
    read_frame,
)
from nestvec.ipc.status_page import QueueLoad, StatusPage

log = logging.getLogger(__name__)

RECONNECT_S: Final = 0.05
# A call waits so long for an engine that has died: starting takes a second or two, and a client's retry is no better.
MAX_ENGINE_WAIT_S: Final = 20.0


class EngineLostError(Exception):
    """The engine process went away before it answered."""


ChangeListener = Callable[[], None]
PushListener = Callable[[Frame], None]


def _ignore_change() -> None:
    """Do nothing."""


def _ignore_push(_: Frame) -> None:
    """Do nothing."""


@dataclass(slots=True)
class EngineClient:
    """A connection to one engine process.

    Attributes:
        path: Socket of the engine process.
        status_page: What the engine process notes of itself.
        on_change: Called when the engine process has come or gone.
        on_push: Called with each frame that the engine process sends unasked.
    """

    path: Path
    status_page: StatusPage
    on_change: ChangeListener = _ignore_change
    on_push: PushListener = _ignore_push
    _waiting: dict[int, "asyncio.Future[Frame]"] = field(default_factory=dict)
    _ids: "itertools.count[int]" = field(default_factory=itertools.count)
    _up: asyncio.Event = field(default_factory=asyncio.Event)
    _writer: asyncio.StreamWriter | None = None
    _task: "asyncio.Task[None] | None" = None

    @property
    def is_up(self) -> bool:
        """Whether the engine process is there."""
        return self._up.is_set()

    def subscribe(self, on_change: ChangeListener, on_push: PushListener) -> None:
        """Set who is told that the engine has come or gone, and who is given the frames that it sends unasked."""
        self.on_change, self.on_push = on_change, on_push

    def queue_load(self) -> QueueLoad:
        """Return how full the engine's queue was when it noted that last."""
        return self.status_page.queue_load()

    @contextmanager
    def client_for(self, tokens: int) -> Iterator["EngineClient"]:
        """Give this client, whatever the call: there is no other."""
        del tokens
        yield self

    def start(self) -> None:
        """Connect, and connect again whenever the engine process has gone."""
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    async def close(self) -> None:
        """Disconnect for good."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def wait_until_up(self, within_s: float) -> None:
        """Wait for the engine process.

        Raises:
            NotReadyError: The engine process does not come in time.
        """
        try:
            async with asyncio.timeout(within_s):
                await self._up.wait()
        except TimeoutError:
            raise NotReadyError("The engine is restarting.", retry_after_s=2.0) from None

    async def call(self, make: Callable[[int], Frame]) -> Frame:
        """Send a frame and wait for its answer.

        Args:
            make: Makes the frame, given its id.

        Raises:
            EngineLostError: The engine process went away.
            NestvecError: The engine answers with it.
        """
        writer = self._writer
        if writer is None:
            raise EngineLostError
        call_id = next(self._ids)
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = answer
        try:
            await _send(writer, make(call_id))
            frame = await answer
        except asyncio.CancelledError:
            with suppress(EngineLostError):
                _write(writer, Frame({"kind": "cancel", "id": call_id}))
            raise
        finally:
            self._waiting.pop(call_id, None)
        if frame.kind == "failed":
            raise error_of(frame)
        return frame

    async def ask(self, kind: str, **fields: Any) -> Frame:  # noqa: ANN401 - JSON
        """Send a frame without arrays and wait for its answer; raises what `call` raises."""
        return await self.call(lambda call_id: Frame({"kind": kind, "id": call_id, **fields}))

    async def load(self, model: str) -> tuple[BackendInfo, int]:
        """Have the engine load a model, if no other process has asked for it before.

        Returns:
            The backend's info and the budget of a micro-batch in token equivalents.

        Raises:
            NestvecError: The model cannot be loaded.
        """
        while True:
            await self.wait_until_up(MAX_ENGINE_WAIT_S)
            with suppress(EngineLostError):
                return loaded_of(await self.ask("load", model=model))
            await asyncio.sleep(RECONNECT_S)

    async def _keep_connected(self) -> None:
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(
                    self.path, limit=BUFFER_BYTES
                )
            except OSError:
                await asyncio.sleep(RECONNECT_S)
                continue
            try:
                while True:
                    self._receive(await read_frame(reader))
            except (OSError, asyncio.IncompleteReadError, ValueError):
                log.warning("the engine's process has gone; waiting for the next")
            finally:
                self._on_lost()

    def _receive(self, frame: Frame) -> None:
        """Hand an answer to its call, and what the engine sends unasked to its listener."""
        if frame.kind == "ready":
            self._up.set()
            self.on_change()
        elif "id" not in frame.head:
            self.on_push(frame)
        else:
            answer = self._waiting.get(frame.head["id"])
            if answer is not None and not answer.done():
                answer.set_result(frame)

    def _on_lost(self) -> None:
        """Fail what waits for an answer, and tell the listener."""
        writer, self._writer = self._writer, None
        was_up = self.is_up
        self._up.clear()
        if writer is not None:
            writer.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(EngineLostError())
        if was_up:
            self.on_change()


def _write(writer: asyncio.StreamWriter, frame: Frame) -> None:
    """Put a frame on its way.

    Raises:
        EngineLostError: The engine process went away.
    """
    if writer.is_closing():
        raise EngineLostError
    writer.writelines(frame.parts())


async def _send(writer: asyncio.StreamWriter, frame: Frame) -> None:
    """Put a frame on its way, no faster than the engine process reads.

    Raises:
        EngineLostError: The engine process went away.
    """
    _write(writer, frame)
    try:
        await writer.drain()
    except (ConnectionError, RuntimeError):
        raise EngineLostError from None
