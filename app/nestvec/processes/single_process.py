"""HTTP and engine in one process: the default."""

import asyncio
import sys
import time

from nestvec.api.state import ApiState, Phase
from nestvec.config.settings import Settings
from nestvec.main import Placement, build_app
from nestvec.observability.logs import get_logger
from nestvec.processes.gpu_monitor import watch_gpu
from nestvec.processes.watchdog import Watchdog
from nestvec.processes.web_server import (
    bind_all,
    make_server,
    operations_port_of,
    url_of,
    when_ready,
)

log = get_logger(__name__)


def run_single(settings: Settings) -> None:
    """Serve until stopped; exits with 1 where no model can be served."""
    listeners = bind_all(settings)
    url = url_of(listeners[0], settings.host)

    def stop() -> None:
        server.should_exit = True

    greet = when_ready(url, stop, authenticated=bool(settings.secrets))

    def on_ready(state: ApiState) -> None:
        greet(state)
        if state.phase is Phase.READY:
            watch(state, settings.batch_timeout_s)
            watch_gpu(settings, state.metrics)

    placement = Placement(operations_port=operations_port_of(listeners))
    app = build_app(settings, placement=placement, on_ready=on_ready)
    server = make_server(app, settings)
    log.info("listening", url=url, model=settings.model)
    server.run(sockets=listeners)
    if app.state.phase is Phase.FAILED:
        sys.exit(1)


def watch(state: ApiState, patience_s: float) -> None:
    """Let a watchdog look after the engine for as long as the process lives."""
    loop = asyncio.get_running_loop()

    def overdue_s() -> float:
        cores = [model.core for model in state.service.models.loaded()]
        over = max((c.vitals(time.monotonic(), patience_s).overdue_s for c in cores), default=0.0)
        state.metrics.overdue.set(over)
        return over

    def tell(hangs: bool) -> None:  # noqa: FBT001 - the callback's one argument
        loop.call_soon_threadsafe(lambda: state.note_engine(is_up=not hangs))

    Watchdog(overdue_s, patience_s, tell).start()
