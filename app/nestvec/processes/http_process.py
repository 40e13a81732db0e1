"""An HTTP process: parses, tokenizes and answers; the queues of its models are in engine processes."""

import asyncio
import multiprocessing
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Final

from nestvec.api.state import ApiState, Phase
from nestvec.assembly.keys import SharedKeyFiles
from nestvec.assembly.service import build_http_service
from nestvec.config.settings import Settings
from nestvec.engine.models.model_registry import ModelSlot, SlotState
from nestvec.engine.observer import Observer
from nestvec.engine.service import EmbeddingService
from nestvec.errors import NotReadyError
from nestvec.ipc.engine_client import EngineClient, EngineLostError
from nestvec.ipc.frames import Frame
from nestvec.ipc.load_balancer import EngineClientPool
from nestvec.ipc.status_page import StatusPage
from nestvec.main import ProcessRole, build_app
from nestvec.observability.logs import configure_logs, get_logger
from nestvec.observability.shared_metrics import share_metrics
from nestvec.processes.child import FIRST, Restarts
from nestvec.processes.listeners import operations_port_of
from nestvec.processes.runtime_dir import RuntimeDir, http_role
from nestvec.processes.web_server import (
    HttpServer,
    announce_when_ready,
    make_server,
)
from nestvec.system.packages import imported_whole

log = get_logger(__name__)

# How often it is looked whether the first HTTP process can answer.
POLL_S: Final = 0.02
HEARTBEAT_INTERVAL_S: Final = 0.1


def run_http_process(
    settings: Settings,
    runtime_dir: RuntimeDir,
    number: int,
    url: str,
    listeners: list[socket.socket],
    restarts: Restarts = FIRST,
) -> None:
    """Run an HTTP process until the supervisor ends it.

    The very first takes connections at once, to say that it is loading; all others when they can answer, so that nobody
    who was told that the server is ready is then told that it is not.

    Args:
        settings: All settings.
        runtime_dir: Shared with the other processes.
        number: Number of the process among several; 0 runs the batch jobs too, and says that the server is ready.
        url: Where the server is reached.
        listeners: Sockets that all HTTP processes share.
        restarts: What became of the processes of this number that there were before.
    """
    configure_logs(level=settings.log_level, style=settings.log_format)
    role = http_role(number)
    share_metrics(runtime_dir.metrics, role)
    status_page = StatusPage(runtime_dir.http_status_page(number))
    process = HttpProcess(runtime_dir, status_page, settings.engine_count)
    process_role = ProcessRole(
        role=role,
        runs_jobs=number == 0,
        shares_data=True,
        begin=process.begin,
        load=process.load,
        shared_keys=SharedKeyFiles(
            runtime_dir.folder, runtime_dir.bucket_memory.path, runtime_dir.month_memory.path
        ),
        operations_port=operations_port_of(listeners),
    )
    announce = announce_when_ready(url, process.stop, authenticated=bool(settings.secrets))
    is_first = number == 0 and not restarts.earlier

    def on_ready(state: ApiState) -> None:
        if state.phase is Phase.READY:
            process.beat(is_ready=True)
            # Held back since the start: what was asked for meanwhile is done now, when it can be.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
            state.service.pool.unload_remotely = process.unload_remotely
            if is_first:
                runtime_dir.note_serving()
            else:
                process.listen_soon(listeners)
        if number == 0 or state.phase is Phase.FAILED:
            announce(state)

    with imported_whole():  # of what is switched on
        app = build_app(settings, process_role=process_role, on_ready=on_ready)
    app.state.metrics.processes.note_start(restarts.earlier, was_hung=restarts.was_hung)
    process.server = make_server(app, settings)
    process.server.run(sockets=listeners if is_first else [])
    if app.state.phase is Phase.FAILED:
        sys.exit(1)


@dataclass(slots=True)
class HttpProcess:
    """Ties the application of an HTTP process to the engine processes.

    Attributes:
        runtime_dir: Shared with the other processes.
        status_page: Where it notes its heartbeat.
        engine_count: How many engine processes there are.
        server: The HTTP server; None until it is made.
        engines: Connections to the engine processes; None until the event loop runs.
        loop: The event loop; None until it runs.
    """

    runtime_dir: RuntimeDir
    status_page: StatusPage
    engine_count: int = 1
    server: HttpServer | None = None
    engines: EngineClientPool | None = None
    loop: asyncio.AbstractEventLoop | None = None
    _listen_task: "asyncio.Task[None] | None" = None
    _heartbeat_task: "asyncio.Task[None] | None" = None

    async def begin(self, state: ApiState) -> None:
        """Connect to the engine processes; on the event loop, before anything is loaded."""
        self.loop = asyncio.get_running_loop()
        self._heartbeat_task = asyncio.create_task(self._keep_beating(state))
        files = [self.runtime_dir.engine_files(number) for number in range(self.engine_count)]
        self.engines = engines = EngineClientPool(
            [EngineClient(file.socket, StatusPage(file.status_page)) for file in files]
        )
        engines.subscribe(
            lambda: state.note_engine(is_up=engines.is_up),
            lambda frame: on_engine_event(frame, state),
        )
        engines.start()
        if (parent := multiprocessing.parent_process()) is not None:
            self.loop.add_reader(parent.sentinel, self._on_supervisor_death, parent.sentinel)

    def beat(self, *, is_ready: bool) -> None:
        """Note once that the event loop runs.

        Args:
            is_ready: Whether this process can answer: from then on it may not be silent for long.
        """
        self.status_page.beat(time.monotonic(), is_ready=is_ready)

    async def _keep_beating(self, state: ApiState) -> None:
        """Note ten times a second that the event loop runs: for the supervisor, which replaces a process that hangs."""
        while True:
            self.beat(is_ready=state.has_service)
            await asyncio.sleep(HEARTBEAT_INTERVAL_S)

    def load(self, settings: Settings, observer: Observer) -> EmbeddingService:
        """Build the service over the engine processes; called in a thread, after `begin`.

        Raises:
            ModelError: No model can be served.
        """
        assert self.engines is not None  # noqa: S101 - `begin` has run
        assert self.loop is not None  # noqa: S101 - `begin` has run
        return build_http_service(settings, observer, self.engines, self.loop)

    def listen_soon(self, listeners: list[socket.socket]) -> None:
        """Take connections once the first HTTP process can answer."""

        async def listen() -> None:
            while not self.runtime_dir.is_serving:  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(POLL_S)
            if self.server is not None:
                await self.server.listen(listeners)

        self._listen_task = asyncio.create_task(listen())

    def stop(self) -> None:
        """End the server: there is nothing to serve."""
        if self.server is not None:
            self.server.should_exit = True

    async def unload_remotely(self, slot: ModelSlot) -> None:
        """Have the engine processes unload a model.

        Raises:
            NotReadyError: The engine is being started again.
        """
        assert self.engines is not None  # noqa: S101 - `begin` has run
        try:
            await self.engines.ask("unload", model=slot.name)
        except EngineLostError:
            raise NotReadyError("The engine is restarting.", retry_after_s=2.0) from None

    def _on_supervisor_death(self, sentinel: int) -> None:
        """End this process, as nobody would start the engine again."""
        if self.loop is not None and self.server is not None:
            self.loop.remove_reader(sentinel)
            log.error("supervisor_is_gone")
            self.server.handle_exit(signal.SIGTERM, None)


def on_engine_event(frame: Frame, state: ApiState) -> None:
    """Note that a model was unloaded in the engine process: it is loaded again when a call names it."""
    if frame.kind != "model" or frame.head["state"] != SlotState.UNLOADED or not state.has_service:
        return
    for slot in state.service.models.all():
        if frame.head["name"] == slot.name and slot.state is SlotState.READY and not slot.users:
            slot.model, slot.state = None, SlotState.UNLOADED
