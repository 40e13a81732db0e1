"""An HTTP process: parses, tokenises and answers; its models' cores are behind the link."""

import asyncio
import multiprocessing
import signal
import socket
import sys

from app.api.state import ApiState, Phase
from app.engine.service import EmbeddingService
from app.engine.slots import Slot, SlotState
from app.engine.types import Observer
from app.link.client import Link
from app.link.flight import Flight
from app.link.frames import Frame
from app.logs import configure_logs, get_logger
from app.main import Placement, build_app
from app.metrics import share_metrics
from app.service_assembly import build_front
from app.serving.places import Places
from app.serving.web_server import make_server, operations_port_of, when_ready
from app.settings import Settings

log = get_logger(__name__)


def run_front(
    settings: Settings, places: Places, number: int, url: str, listeners: list[socket.socket]
) -> None:
    """Life of the process.

    Args:
        settings: All of them.
        places: Shared with the other processes.
        number: Of the front; the first runs the batches too, and greets.
        url: Where the server is reached.
        listeners: Shared by all fronts.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server is there to take it
    configure_logs(level=settings.log_level, style=settings.log_format)
    role = f"front-{number}"
    share_metrics(places.metrics, role)
    ends: list[Link] = []

    def load(given: Settings, observer: Observer) -> EmbeddingService:
        (link,) = ends
        return build_front(given, observer, link, loops[0])

    loops: list[asyncio.AbstractEventLoop] = []

    async def begin(state: ApiState) -> None:
        """On the loop, before anything is loaded."""
        loop = asyncio.get_running_loop()
        loops.append(loop)
        link = Link(places.socket, Flight(places.flight, places.secret))
        link.on_change = lambda: state.note_engine(is_up=link.is_up)
        link.on_push = lambda frame: _follow(frame, state, link)
        ends.append(link)
        link.start()
        if (parent := multiprocessing.parent_process()) is not None:
            loop.add_reader(parent.sentinel, _orphaned, loop, parent.sentinel)

    def stop() -> None:
        server.should_exit = True

    def _orphaned(loop: asyncio.AbstractEventLoop, sentinel: int) -> None:
        loop.remove_reader(sentinel)
        log.error("supervisor_is_gone")
        server.handle_exit(signal.SIGTERM, None)

    greet = when_ready(url, stop, authenticated=bool(settings.secrets))

    def on_ready(state: ApiState) -> None:
        if state.phase is Phase.READY:
            _tell_of_unloading(state, ends[0])
        if number == 0 or state.phase is Phase.FAILED:
            greet(state)

    placement = Placement(
        role=role,
        runs_jobs=number == 0,
        shares_data=True,
        begin=begin,
        load=load,
        buckets=places.buckets,
        operations_port=operations_port_of(listeners),
    )
    app = build_app(settings, placement=placement, on_ready=on_ready)
    server = make_server(app, settings)
    server.run(sockets=listeners)
    if app.state.phase is Phase.FAILED:
        sys.exit(1)


def _follow(frame: Frame, state: ApiState, link: Link) -> None:
    """A model went out of the core's memory: here it is loaded again when a call means it."""
    if frame.kind != "model" or frame.head["state"] != SlotState.UNLOADED or not state.has_service:
        return
    del link
    for slot in state.service.models.all():
        if frame.head["name"] in slot.names and slot.state is SlotState.READY and not slot.users:
            slot.model, slot.state = None, SlotState.UNLOADED


def _tell_of_unloading(state: ApiState, link: Link) -> None:
    """Where an operator unloads a model here, the core is to let it go too."""
    told = state.service.pool.on_change
    tasks: set[asyncio.Task[Frame]] = set()

    def note(slot: Slot) -> None:
        told(slot)
        if slot.state is SlotState.UNLOADED and link.is_up:
            task = asyncio.get_running_loop().create_task(link.ask("unload", model=slot.name))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    state.service.pool.on_change = note
