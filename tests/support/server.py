"""Real server processes for tests: start, wait until ready, stop."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

READY_TIMEOUT_S = 120.0


@dataclass
class Server:
    """A running `nestvec serve`."""

    process: subprocess.Popen[str]
    url: str
    log: Path
    stopped: bool = field(default=False)

    def logs(self) -> str:
        """What it has written to stderr."""
        return self.log.read_text("utf-8")

    def terminate(self) -> int:
        """SIGTERM, and wait; gives the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def environment(**settings: object) -> dict[str, str]:
    """The shell's environment with these settings and no others, but for the cache."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith("NESTVEC_") or k == "NESTVEC_CACHE_DIR"
    }
    return {**kept, **{f"NESTVEC_{k.upper()}": str(v) for k, v in settings.items()}}


def command(*arguments: str) -> list[str]:
    """The nestvec command of this interpreter."""
    return [sys.executable, "-m", "nestvec", *arguments]


@contextmanager
def running_server(folder: Path, **settings: object) -> Iterator[Server]:
    """Start a server on a free port and wait until it is ready; it is ended with the block, whatever happens."""
    with starting_server(folder, **settings) as server:
        wait_until_ready(server)
        yield server


@contextmanager
def starting_server(folder: Path, **settings: object) -> Iterator[Server]:
    """The same, as soon as it listens."""
    log = folder / f"server-{time.monotonic_ns()}.log"
    chosen = {
        "port": 0,
        "offline": True,
        "log_format": "json",
        "drain_grace_s": 0,
        "data_dir": folder / "data",
        **settings,
    }
    with log.open("w") as errors:
        process = subprocess.Popen(
            command("serve"),
            env=environment(**chosen),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
        )
    try:
        yield Server(process, _address(process, log), log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)


def _address(process: subprocess.Popen[str], log: Path) -> str:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r'"url": "(http://[^"]+)"', log.read_text())
        if found:
            return found.group(1)
        time.sleep(0.02)
    raise AssertionError(f"the server did not listen:\n{log.read_text()}")


def wait_until_ready(server: Server) -> None:
    """Ask for readiness until it is there."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if httpx.get(f"{server.url}/health/ready").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.02)
    raise AssertionError(f"the server did not become ready:\n{server.logs()}")
