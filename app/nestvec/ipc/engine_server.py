"""An engine process's end: takes calls of any number of HTTP processes, and answers each as it is done."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nestvec.engine.models.model_pool import ModelPool
from nestvec.engine.models.model_registry import ModelSlot
from nestvec.errors import InternalError, NestvecError
from nestvec.ipc.frames import (
    BUFFER_BYTES,
    Frame,
    error_frame,
    loaded_frame,
    read_frame,
    submission_of,
    vectors_frame,
)
from nestvec.system.private_files import make_private_folder

log = logging.getLogger(__name__)

# An HTTP process that reads no answers holds up no more than this of them here.
MAX_UNREAD_BYTES: Final = 256 * 2**20


@dataclass(slots=True)
class EngineServer:
    """Serves a pool of models on a socket.

    Attributes:
        pool: The models.
        path: The socket; readable by its owner only.
    """

    pool: ModelPool
    path: Path
    _server: asyncio.Server | None = None
    _socket_id: tuple[int, int] = (0, 0)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _serving: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def start(self) -> None:
        """Listen on the socket; the first model must be loaded.

        Raises:
            OSError: The socket cannot be made.
        """
        make_private_folder(self.path.parent)
        self.path.unlink(missing_ok=True)
        umask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(
                self._serve, self.path, limit=BUFFER_BYTES
            )
        finally:
            os.umask(umask)
        status = self.path.stat()
        self._socket_id = status.st_dev, status.st_ino

    async def keep(self) -> None:
        """Listen anew where the socket's name has vanished; open connections go on.

        Raises:
            OSError: The socket cannot be made.
        """
        with suppress(FileNotFoundError):
            status = self.path.stat()
            if (status.st_dev, status.st_ino) == self._socket_id:
                return
        if self._server is not None:
            self._server.close()
        await self.start()

    async def close(self) -> None:
        """Stop listening, and close all connections."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def announce(self, slot: ModelSlot) -> None:
        """Tell every HTTP process that a model came into memory or went."""
        frame = Frame({"kind": "model", "name": slot.name, "state": slot.state})
        for writer in self._writers:
            writer.writelines(frame.parts())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the connection of one HTTP process until it closes."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it runs in one
        self._serving.add(task)
        self._writers.add(writer)
        running: dict[int, asyncio.Task[None]] = {}
        try:
            writer.transport.set_write_buffer_limits(high=MAX_UNREAD_BYTES)
            writer.writelines(Frame({"kind": "ready"}).parts())
            while True:
                self._receive(await read_frame(reader), writer, running)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the HTTP process has gone
        finally:
            self._writers.discard(writer)
            self._serving.discard(task)
            for call in running.values():
                call.cancel()
            writer.close()

    def _receive(
        self, frame: Frame, writer: asyncio.StreamWriter, running: "dict[int, asyncio.Task[None]]"
    ) -> None:
        """Begin a call, or cancel one."""
        call_id = int(frame.head["id"])
        if frame.kind == "cancel":
            call = running.get(call_id)
            if call is not None:
                call.cancel()
            return
        task = asyncio.create_task(self._answer(call_id, frame, writer))
        running[call_id] = task
        task.add_done_callback(lambda _: running.pop(call_id, None))

    async def _answer(self, call_id: int, frame: Frame, writer: asyncio.StreamWriter) -> None:
        work: Mapping[str, Callable[[int, Frame], Awaitable[Frame]]] = {
            "submit": self._submit,
            "load": self._load,
            "unload": self._unload,
        }
        try:
            answer = await work[frame.kind](call_id, frame)
        except NestvecError as error:
            answer = error_frame(call_id, error)
        except Exception as error:  # noqa: BLE001 - a call must be answered
            log.error("a call failed in the engine: %s", type(error).__name__)  # noqa: TRY400
            message = "The server had an error while processing your request."
            answer = error_frame(call_id, InternalError(message))
        with suppress(ConnectionError):
            writer.writelines(answer.parts())
            await writer.drain()

    async def _submit(self, call_id: int, frame: Frame) -> Frame:
        submission = submission_of(frame)
        async with self.pool.using(frame.head["model"]) as model:
            return vectors_frame(call_id, await model.core.submit(submission))

    async def _load(self, call_id: int, frame: Frame) -> Frame:
        async with self.pool.using(frame.head["model"]) as model:
            return loaded_frame(call_id, model.core.backend_info, model.core.max_batch_tokens)

    async def _unload(self, call_id: int, frame: Frame) -> Frame:
        await self.pool.unload(self.pool.models.find(frame.head["model"]))
        return Frame({"kind": "unloaded", "id": call_id})
