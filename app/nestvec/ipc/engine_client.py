"""The front's end: a connection to the core that comes back, and a `Core` of each model over it.

When the core dies its calls are not lost: each is sent again to the next one, which runs what was running at the death
alone. A call ends with its deadline, or with NotReadyError where the core stays away.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from nestvec.engine.core.admission import jittered
from nestvec.engine.core.ports import Traits, Vitals
from nestvec.engine.types import Item, RawVectors
from nestvec.engine.vectors.pooler import Outputs
from nestvec.errors import DeadlineError, NotReadyError, QueueFullError
from nestvec.ipc.frames import BUFFER_BYTES, Frame, error_of, items_frame, read_frame, vectors_of
from nestvec.ipc.status_page import Flight

log = logging.getLogger(__name__)

RECONNECT_S: Final = 0.05
# A call waits so long for a core that has died: starting takes a second or two, and a client's retry is no better.
PATIENCE_S: Final = 20.0


class LinkLostError(Exception):
    """The core went away before it answered."""


Told = Callable[[], None]
Pushed = Callable[[Frame], None]


def _tell_nobody() -> None:
    """Ignore."""


def _push_nowhere(_: Frame) -> None:
    """Ignore."""


@dataclass(slots=True)
class Link:
    """A connection to the core of a device.

    Attributes:
        path: Of the core's socket.
        flight: What the core notes of itself.
        on_change: Told when the core has come or gone.
        on_push: Given what the core says unasked.
    """

    path: Path
    flight: Flight
    on_change: Told = _tell_nobody
    on_push: Pushed = _push_nowhere
    _waiting: dict[int, "asyncio.Future[Frame]"] = field(default_factory=dict)
    _ids: "itertools.count[int]" = field(default_factory=itertools.count)
    _up: asyncio.Event = field(default_factory=asyncio.Event)
    _writer: asyncio.StreamWriter | None = None
    _task: "asyncio.Task[None] | None" = None

    @property
    def is_up(self) -> bool:
        """Whether the core is there."""
        return self._up.is_set()

    def tell(self, on_change: Told, on_push: Pushed) -> None:
        """Who is told that the core has come or gone, and given what it says unasked."""
        self.on_change, self.on_push = on_change, on_push

    def queue(self) -> tuple[float, float, float]:
        """What the core last noted of its queue; see `Flight.queue`."""
        return self.flight.queue()

    @contextmanager
    def chosen(self, tokens: int) -> Iterator["Link"]:
        """There is but this one."""
        del tokens
        yield self

    def start(self) -> None:
        """Connect, and connect again whenever the core has gone."""
        self._task = asyncio.get_running_loop().create_task(self._live())

    async def close(self) -> None:
        """Let go of the core."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def until_up(self, within_s: float) -> None:
        """Wait for the core.

        Raises:
            NotReadyError: It does not come in time.
        """
        try:
            async with asyncio.timeout(within_s):
                await self._up.wait()
        except TimeoutError:
            raise NotReadyError("The engine is restarting.", retry_after_s=2.0) from None

    async def call(self, make: Callable[[int], Frame]) -> Frame:
        """Send a frame and wait for its answer.

        Args:
            make: Makes the frame with its id.

        Raises:
            LinkLostError: The core went away.
            NestvecError: What it answers.
        """
        writer = self._writer
        if writer is None:
            raise LinkLostError
        number = next(self._ids)
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            await _send(writer, make(number))
            frame = await answer
        except asyncio.CancelledError:
            with suppress(LinkLostError):
                _write(writer, Frame({"kind": "cancel", "id": number}))
            raise
        finally:
            self._waiting.pop(number, None)
        if frame.kind == "failed":
            raise error_of(frame)
        return frame

    async def ask(self, kind: str, **said: Any) -> Frame:  # noqa: ANN401 - JSON
        """A call without arrays; see `call`."""
        return await self.call(lambda number: Frame({"kind": kind, "id": number, **said}))

    async def load(self, model: str) -> Traits:
        """Have a model loaded there, by whichever process comes first to do it.

        Raises:
            NestvecError: It cannot be.
        """
        while True:
            await self.until_up(PATIENCE_S)
            with suppress(LinkLostError):
                loaded = await self.ask("load", model=model)
                return Traits(**loaded.head["traits"])
            await asyncio.sleep(RECONNECT_S)

    async def _live(self) -> None:
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
                    self._take(await read_frame(reader))
            except (OSError, asyncio.IncompleteReadError, ValueError):
                log.warning("the engine's process has gone; waiting for the next")
            finally:
                self._lose()

    def _take(self, frame: Frame) -> None:
        """An answer, or what the core says unasked."""
        if frame.kind == "ready":
            self._up.set()
            self.on_change()
        elif "id" not in frame.head:
            self.on_push(frame)
        else:
            answer = self._waiting.get(frame.head["id"])
            if answer is not None and not answer.done():
                answer.set_result(frame)

    def _lose(self) -> None:
        writer, self._writer = self._writer, None
        was_up = self.is_up
        self._up.clear()
        if writer is not None:
            writer.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(LinkLostError())
        if was_up:
            self.on_change()


class Connection(Protocol):
    """To one core, or to those of several devices."""

    def queue(self) -> tuple[float, float, float]:
        """Of the core that a call would go to; see `Flight.queue`."""

    def chosen(self, tokens: int) -> AbstractContextManager[Link]:
        """The core for a call of so many tokens."""

    async def until_up(self, within_s: float) -> None:
        """Wait until a core is there.

        Raises:
            NotReadyError: None comes in time.
        """

    async def load(self, model: str) -> Traits:
        """Have a model loaded.

        Raises:
            NestvecError: It cannot be.
        """


@dataclass(frozen=True, slots=True)
class RemoteCore:
    """A model's core behind a link.

    Attributes:
        link: To its process, or to those of several devices.
        model: Name of its slot there.
        outputs: What is made of token states; the same as there.
        traits: What runs the graph there.
        clock: Monotonic seconds.
    """

    link: Connection
    model: str
    outputs: Outputs
    traits: Traits
    clock: Callable[[], float] = time.monotonic

    def check_room(self, tokens: int, key_id: str) -> None:
        """Refuse what the core would, by what it last noted; keys' shares are its own to know.

        Raises:
            QueueFullError: There is no room.
        """
        del key_id
        waiting, token_s, most = self.link.queue()
        if waiting and waiting + tokens > most > 0:
            raise QueueFullError(
                f"The queue holds {waiting:.0f} tokens of at most {most:.0f}. Retry later.",
                retry_after_s=jittered(waiting * token_s / 2),
            )

    async def submit(self, items: Sequence[Item]) -> RawVectors:
        """Run items there, again where the process died meanwhile.

        Raises:
            CapacityError: Not now.
            InternalError: The runtime failed on an item.
        """
        latest_s = min((i.deadline_s for i in items if i.deadline_s is not None), default=None)
        await self.link.until_up(self._left_s(latest_s))
        with self.link.chosen(sum(item.tokens for item in items)) as link:
            while True:
                await link.until_up(self._left_s(latest_s))
                with suppress(LinkLostError):
                    answer = await link.call(lambda n: items_frame(n, self.model, items))
                    return vectors_of(answer)
                await asyncio.sleep(RECONNECT_S)  # the link must have its turn to see it too

    def _left_s(self, latest_s: float | None) -> float:
        """How long to wait for a core.

        Raises:
            DeadlineError: No longer.
        """
        left_s = PATIENCE_S if latest_s is None else latest_s - self.clock()
        if left_s <= 0:
            raise DeadlineError("The deadline passed while the engine was restarting.")
        return min(left_s, PATIENCE_S)

    def vitals(self, now_s: float, patience_s: float) -> Vitals:
        """The core's process is looked after by its supervisor."""
        del now_s, patience_s
        return Vitals()

    def close(self) -> None:
        """Nothing to stop here: the core's process has its own life."""


def _write(writer: asyncio.StreamWriter, frame: Frame) -> None:
    """Put a frame on its way.

    Raises:
        LinkLostError: The core went away.
    """
    if writer.is_closing():
        raise LinkLostError
    writer.writelines(frame.parts())


async def _send(writer: asyncio.StreamWriter, frame: Frame) -> None:
    """The same, no faster than it is read."""
    _write(writer, frame)
    try:
        await writer.drain()
    except (ConnectionError, RuntimeError):
        raise LinkLostError from None
