"""An HTTP process's end: a connection to an engine process that comes back, and each model's `Core` over it.

When the engine process dies its calls are not lost: each is sent again to the next one, which runs alone whatever was
running when the last one died. A call ends with its deadline, or with NotReadyError where the engine stays away.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from nestvec.engine.backend import BackendInfo
from nestvec.engine.core.batching.admission import jittered
from nestvec.engine.core.ports import CoreHealth
from nestvec.engine.types import RawVectors, Submission
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import DeadlineError, NotReadyError, QueueFullError
from nestvec.ipc.frames import (
    BUFFER_BYTES,
    Frame,
    error_of,
    loaded_of,
    read_frame,
    submit_frame,
    vectors_of,
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


class EngineConnection(Protocol):
    """Leads to one engine process, or to those of several devices."""

    def queue_load(self) -> QueueLoad:
        """Return how full the queue is that a call would go to."""

    def client_for(self, tokens: int) -> AbstractContextManager[EngineClient]:
        """Give the client of the engine process that a call of so many tokens goes to."""

    async def wait_until_up(self, within_s: float) -> None:
        """Wait until an engine process is there.

        Raises:
            NotReadyError: None comes in time.
        """

    async def load(self, model: str) -> tuple[BackendInfo, int]:
        """Have a model loaded.

        Returns:
            The backend's info and the budget of a micro-batch in token equivalents.

        Raises:
            NestvecError: The model cannot be loaded.
        """


@dataclass(frozen=True, slots=True)
class RemoteCore:
    """A model's `Core` that runs in engine processes.

    Attributes:
        engines: Leads to one engine process, or to those of several devices.
        model: Name of the model's slot there.
        pooler: What is made of token states; the same as there.
        backend_info: What the backend there is and gives.
        max_batch_tokens: Budget of a micro-batch there, in token equivalents.
        clock: Monotonic seconds.
    """

    engines: EngineConnection
    model: str
    pooler: Pooler
    backend_info: BackendInfo
    max_batch_tokens: int
    clock: Callable[[], float] = time.monotonic

    def check_queue_bound(self, tokens: int, key_id: str) -> None:
        """Refuse what the core would refuse, by what it last noted; it alone knows what each key has waiting.

        Raises:
            QueueFullError: There is no room.
        """
        del key_id
        waiting, token_s, max_tokens = self.engines.queue_load()
        if waiting and waiting + tokens > max_tokens > 0:
            raise QueueFullError(
                f"The queue holds {waiting:.0f} tokens of at most {max_tokens:.0f}. Retry later.",
                retry_after_s=jittered(waiting * token_s / 2),
            )

    async def submit(self, submission: Submission) -> RawVectors:
        """Run the items of a call there, and again in the next engine process where one dies meanwhile.

        Raises:
            CapacityError: The call cannot be served now.
            InternalError: The runtime failed on an item.
        """
        deadline_s = submission.options.deadline_s
        await self.engines.wait_until_up(self._wait_s(deadline_s))
        with self.engines.client_for(submission.tokens) as client:
            while True:
                await client.wait_until_up(self._wait_s(deadline_s))
                with suppress(EngineLostError):
                    answer = await client.call(
                        lambda call_id: submit_frame(call_id, self.model, submission)
                    )
                    return vectors_of(answer)
                # The client's own task must have its turn to see the loss too.
                await asyncio.sleep(RECONNECT_S)

    def _wait_s(self, deadline_s: float | None) -> float:
        """Return how long to wait for an engine process.

        Raises:
            DeadlineError: The deadline has passed.
        """
        left_s = MAX_ENGINE_WAIT_S if deadline_s is None else deadline_s - self.clock()
        if left_s <= 0:
            raise DeadlineError("The deadline passed while the engine was restarting.")
        return min(left_s, MAX_ENGINE_WAIT_S)

    def health(self, now_s: float, batch_timeout_s: float) -> CoreHealth:
        """Return that all is well: the supervisor looks after the engine process."""
        del now_s, batch_timeout_s
        return CoreHealth()

    def close(self) -> None:
        """Do nothing: the engine process has a life of its own."""


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
