"""What the processes of a server run. Each imports what it needs itself; their supervisor needs none of it."""

import socket

from nestvec.config.settings import Settings
from nestvec.processes.child import Restarts
from nestvec.processes.runtime_dir import RuntimeDir
from nestvec.system.packages import imported_whole


def run_engine(
    settings: Settings, runtime_dir: RuntimeDir, number: int, restarts: Restarts
) -> None:
    """Run an engine process; its arguments are those of `run_engine_process`."""
    with imported_whole():
        from nestvec.processes.engine_process import run_engine_process

    run_engine_process(settings, runtime_dir, number, restarts)


def run_http(
    settings: Settings,
    runtime_dir: RuntimeDir,
    number: int,
    url: str,
    listeners: list[socket.socket],
    restarts: Restarts,
) -> None:
    """Run an HTTP process; its arguments are those of `run_http_process`."""
    with imported_whole():
        from nestvec.processes.http_process import run_http_process

    run_http_process(settings, runtime_dir, number, url, listeners, restarts)
