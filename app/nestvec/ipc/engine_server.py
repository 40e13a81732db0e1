"""The core's end: takes calls of any number of fronts, and answers each as it is done."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.model_registry import Slot
from nestvec.errors import InternalError, NestvecError
from nestvec.ipc.frames import BUFFER_BYTES, Frame, error_frame, items_of, read_frame, vectors_frame

log = logging.getLogger(__name__)

# A front that reads no answers holds no more than this of them here.
MAX_UNREAD_BYTES: Final = 256 * 2**20


@dataclass(slots=True)
class LinkServer:
    """Serves a pool of models on a socket.

    Attributes:
        pool: The models.
        path: Of the socket; readable by its owner only.
    """

    pool: ModelPool
    path: Path
    _server: asyncio.Server | None = None
    _fronts: set[asyncio.StreamWriter] = field(default_factory=set)
    _serving: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def start(self) -> None:
        """Listen; the first model must be loaded."""
        self.path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                self._serve, self.path, limit=BUFFER_BYTES
            )
        finally:
            os.umask(before)

    async def close(self) -> None:
        """Stop listening, and hang up."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._fronts):
            writer.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def tell(self, slot: Slot) -> None:
        """A model came into memory or went."""
        frame = Frame({"kind": "model", "name": slot.name, "state": slot.state})
        for writer in self._fronts:
            writer.writelines(frame.parts())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Life of a front's connection."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it runs in one
        self._serving.add(task)
        self._fronts.add(writer)
        running: dict[int, asyncio.Task[None]] = {}
        try:
            writer.transport.set_write_buffer_limits(high=MAX_UNREAD_BYTES)
            writer.writelines(Frame({"kind": "ready"}).parts())
            while True:
                self._take(await read_frame(reader), writer, running)
        except (OSError, asyncio.IncompleteReadError):
            pass  # it has gone
        finally:
            self._fronts.discard(writer)
            self._serving.discard(task)
            for call in running.values():
                call.cancel()
            writer.close()

    def _take(
        self, frame: Frame, writer: asyncio.StreamWriter, running: "dict[int, asyncio.Task[None]]"
    ) -> None:
        """Begin a call, or end one."""
        number = int(frame.head["id"])
        if frame.kind == "cancel":
            call = running.get(number)
            if call is not None:
                call.cancel()
            return
        task = asyncio.create_task(self._answer(number, frame, writer))
        running[number] = task
        task.add_done_callback(lambda _: running.pop(number, None))

    async def _answer(self, number: int, frame: Frame, writer: asyncio.StreamWriter) -> None:
        work: Mapping[str, Callable[[int, Frame], Awaitable[Frame]]] = {
            "submit": self._submit,
            "load": self._load,
            "unload": self._unload,
        }
        try:
            answer = await work[frame.kind](number, frame)
        except NestvecError as error:
            answer = error_frame(number, error)
        except Exception as error:  # noqa: BLE001 - a call must be answered
            log.error("a call failed in the engine: %s", type(error).__name__)  # noqa: TRY400
            message = "The server had an error while processing your request."
            answer = error_frame(number, InternalError(message))
        with suppress(ConnectionError):
            writer.writelines(answer.parts())
            await writer.drain()

    async def _submit(self, number: int, frame: Frame) -> Frame:
        items = items_of(frame)
        async with self.pool.using(frame.head["model"]) as model:
            return vectors_frame(number, await model.core.submit(items))

    async def _load(self, number: int, frame: Frame) -> Frame:
        async with self.pool.using(frame.head["model"]) as model:
            return Frame({"kind": "loaded", "id": number, "traits": asdict(model.core.traits)})

    async def _unload(self, number: int, frame: Frame) -> Frame:
        await self.pool.unload(self.pool.models.find(frame.head["model"]))
        return Frame({"kind": "unloaded", "id": number})
