"""HTTP and engine in one process: the default."""

import asyncio
import sys
import time

from nestvec.api.state import ApiState, Phase
from nestvec.config.settings import Settings
from nestvec.main import ProcessRole, build_app
from nestvec.observability.energy_metrics import energy_zones
from nestvec.observability.logs import get_logger
from nestvec.processes.gpu_monitor import start_gpu_monitor
from nestvec.processes.listeners import bind_all, operations_port_of, url_of
from nestvec.processes.runtime_home import runtime_homes, sweep
from nestvec.processes.watchdog import Watchdog
from nestvec.processes.web_server import (
    announce_when_ready,
    make_server,
)
from nestvec.system.packages import imported_whole

log = get_logger(__name__)


def run_single(settings: Settings) -> None:
    """Serve until stopped; exits with 1 where no model can be served."""
    # A killed server with processes of its own may have left them running, with the port.
    sweep(runtime_homes(settings.data_dir))
    listeners = bind_all(settings)
    url = url_of(listeners[0], settings.host)

    def stop() -> None:
        server.should_exit = True

    announce = announce_when_ready(url, stop, authenticated=bool(settings.secrets))

    def on_ready(state: ApiState) -> None:
        announce(state)
        if state.phase is Phase.READY:
            start_watchdog(state, settings.batch_timeout_s)
            start_gpu_monitor(settings, state.metrics.gpu)
            state.metrics.energy.watch(energy_zones())

    process_role = ProcessRole(operations_port=operations_port_of(listeners))
    with imported_whole():  # of what is switched on
        app = build_app(settings, process_role=process_role, on_ready=on_ready)
    server = make_server(app, settings)
    log.info("listening", url=url, model=settings.model)
    server.run(sockets=listeners)
    if app.state.phase is Phase.FAILED:
        sys.exit(1)


def start_watchdog(state: ApiState, batch_timeout_s: float) -> None:
    """Let a watchdog check the engine for as long as the process lives."""
    loop = asyncio.get_running_loop()

    def overdue_s() -> float:
        cores = [model.core for model in state.service.models.loaded()]
        now_s = time.monotonic()
        largest_s = max(
            (core.health(now_s, batch_timeout_s).overdue_s for core in cores), default=0.0
        )
        state.metrics.processes.overdue.set(largest_s)
        return largest_s

    def note_hang(hangs: bool) -> None:  # noqa: FBT001 - the callback's one argument
        loop.call_soon_threadsafe(lambda: state.note_engine(is_up=not hangs))

    Watchdog(overdue_s, batch_timeout_s, note_hang).start()
