"""An HTTP process: parses, tokenises and answers; its models' cores are behind the link."""

import asyncio
import multiprocessing
import signal
import socket
import sys
from dataclasses import dataclass

from nestvec.api.state import ApiState, Phase
from nestvec.assembly.service import build_front
from nestvec.config.settings import Settings
from nestvec.engine.models.model_registry import Slot, SlotState
from nestvec.engine.service import EmbeddingService
from nestvec.engine.types import Observer
from nestvec.errors import NotReadyError
from nestvec.ipc.engine_client import Link, LinkLostError
from nestvec.ipc.frames import Frame
from nestvec.ipc.load_balancer import Links
from nestvec.ipc.status_page import Flight
from nestvec.main import Placement, build_app
from nestvec.observability.logs import configure_logs, get_logger
from nestvec.observability.metrics import share_metrics
from nestvec.processes.runtime_dir import Places
from nestvec.processes.web_server import Server, make_server, operations_port_of, when_ready

log = get_logger(__name__)

LOOK_S = 0.02


def run_front(
    settings: Settings,
    places: Places,
    number: int,
    url: str,
    listeners: list[socket.socket],
    restarts: int = 0,
) -> None:
    """Life of the process.

    Args:
        settings: All of them.
        places: Shared with the other processes.
        number: Of the front; the first runs the batches too, and greets.
        url: Where the server is reached.
        listeners: Shared by all fronts.
        restarts: How many of it there were before.

    The very first takes connections at once, to say that it is loading; all others when they can answer, so that nobody
    who was told that the server is ready is then told that it is not.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server is there to take it
    configure_logs(level=settings.log_level, style=settings.log_format)
    role = f"front-{number}"
    share_metrics(places.metrics, role)
    front = Front(places, settings.cores)
    placement = Placement(
        role=role,
        runs_jobs=number == 0,
        shares_data=True,
        begin=front.begin,
        load=front.load,
        buckets=places.buckets,
        operations_port=operations_port_of(listeners),
    )
    greet = when_ready(url, front.stop, authenticated=bool(settings.secrets))
    is_first = number == 0 and not restarts

    def on_ready(state: ApiState) -> None:
        if state.phase is Phase.READY:
            state.service.pool.unload_there = front.unload_there
            if is_first:
                places.is_serving.touch()
            else:
                front.listen_soon(listeners)
        if number == 0 or state.phase is Phase.FAILED:
            greet(state)

    app = build_app(settings, placement=placement, on_ready=on_ready)
    front.server = make_server(app, settings)
    front.server.run(sockets=listeners if is_first else [])
    if app.state.phase is Phase.FAILED:
        sys.exit(1)


@dataclass(slots=True)
class Front:
    """What ties the application to the core's process.

    Attributes:
        places: Shared with the other processes.
        cores: How many there are.
        server: Once it is made.
        link: Once the event loop runs.
        loop: Likewise.
    """

    places: Places
    cores: int = 1
    server: Server | None = None
    link: Links | None = None
    loop: asyncio.AbstractEventLoop | None = None
    _listening: "asyncio.Task[None] | None" = None

    async def begin(self, state: ApiState) -> None:
        """Connect to the core; on the loop, before anything is loaded."""
        self.loop = asyncio.get_running_loop()
        cores = [self.places.of_core(number) for number in range(self.cores)]
        secret = self.places.secret
        self.link = link = Links([Link(own.socket, Flight(own.flight, secret)) for own in cores])
        link.tell(lambda: state.note_engine(is_up=link.is_up), lambda frame: follow(frame, state))
        link.start()
        if (parent := multiprocessing.parent_process()) is not None:
            self.loop.add_reader(parent.sentinel, self._end_alone, parent.sentinel)

    def load(self, settings: Settings, observer: Observer) -> EmbeddingService:
        """Build the front half; in a thread, behind `begin`.

        Raises:
            ModelError: No model can be served.
        """
        assert self.link is not None  # noqa: S101 - `begin` has run
        assert self.loop is not None  # noqa: S101 - likewise
        return build_front(settings, observer, self.link, self.loop)

    def listen_soon(self, listeners: list[socket.socket]) -> None:
        """Take connections, once the first front can answer."""

        async def listen() -> None:
            while not self.places.is_serving.exists():  # noqa: ASYNC110 - another process makes it
                await asyncio.sleep(LOOK_S)
            if self.server is not None:
                await self.server.listen(listeners)

        self._listening = asyncio.create_task(listen())

    def stop(self) -> None:
        """End the server: there is nothing to serve."""
        if self.server is not None:
            self.server.should_exit = True

    async def unload_there(self, slot: Slot) -> None:
        """Have the core let a model go.

        Raises:
            NotReadyError: It is being started again.
        """
        assert self.link is not None  # noqa: S101 - `begin` has run
        try:
            await self.link.ask("unload", model=slot.name)
        except LinkLostError:
            raise NotReadyError("The engine is restarting.", retry_after_s=2.0) from None

    def _end_alone(self, sentinel: int) -> None:
        """The supervisor has died: nobody would start the core again, so end too."""
        if self.loop is not None and self.server is not None:
            self.loop.remove_reader(sentinel)
            log.error("supervisor_is_gone")
            self.server.handle_exit(signal.SIGTERM, None)


def follow(frame: Frame, state: ApiState) -> None:
    """A model went out of the core's memory: here it is loaded again when a call means it."""
    if frame.kind != "model" or frame.head["state"] != SlotState.UNLOADED or not state.has_service:
        return
    for slot in state.service.models.all():
        if frame.head["name"] in slot.names and slot.state is SlotState.READY and not slot.users:
            slot.model, slot.state = None, SlotState.UNLOADED
