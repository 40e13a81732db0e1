"""The processes of a running server, and its run-time folder."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.server import RunningServer

# A signal at which a Python process blocks its main thread, and so its event loop, if BLOCKER is on its path.
BLOCKER = """
import signal, time
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(600))
"""


def children(pid: int) -> list[int]:
    """Ids of the processes that a process has started."""
    names = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in names]


def engine_processes(server: RunningServer) -> list[int]:
    """Those processes of a server that run models: they alone have loaded the runtime."""
    return [pid for pid in children(server.process.pid) if _runs_models(pid)]


def http_processes(server: RunningServer) -> list[int]:
    """Those processes of a server that answer HTTP, the longest running one first."""
    others = set(children(server.process.pid)) - set(engine_processes(server))
    return sorted(pid for pid in others if b"spawn_main" in _file(pid, "cmdline"))


def until(condition: Callable[[], object], within_s: float = 30.0) -> None:
    """Wait for a condition."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to that"
        time.sleep(0.02)


def block_on_signal(folder: Path) -> dict[str, str]:
    """Return an environment in which Python processes block their event loop at SIGUSR1.

    Args:
        folder: Where the module goes that makes them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(BLOCKER)
    earlier = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{earlier}".rstrip(os.pathsep)}


def _runs_models(pid: int) -> bool:
    return b"onnxruntime_pybind11" in _file(pid, "maps")


def _file(pid: int, name: str) -> bytes:
    """What the system tells of a process; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
