"""Real server processes for tests: start them, wait until they are ready, stop them."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

READY_TIMEOUT_S = 120.0
# Makes of a command line one that does more.
CommandWrapper = Callable[[list[str]], list[str]]


@dataclass
class RunningServer:
    """A running `nestvec serve`.

    Attributes:
        process: The process.
        url: Where it is reached.
        log: The file that it writes its log to.
    """

    process: subprocess.Popen[str]
    url: str
    log: Path

    def logs(self) -> str:
        """Return what the server has written to stderr."""
        return self.log.read_text("utf-8")

    def terminate(self) -> int:
        """Send SIGTERM, wait, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def environment(**settings: object) -> dict[str, str]:
    """Return the environment for a server: these settings and no others, except that of the cache."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("NESTVEC_") or name == "NESTVEC_CACHE_DIR"
    }
    return {
        **inherited,
        **{f"NESTVEC_{name.upper()}": str(value) for name, value in settings.items()},
    }


def command(*arguments: str) -> list[str]:
    """Return the command line of nestvec with this interpreter."""
    return [sys.executable, "-m", "nestvec", *arguments]


@contextmanager
def running_server(
    folder: Path, through: CommandWrapper = list, /, **settings: object
) -> Iterator[RunningServer]:
    """Start a server on a free port and wait until it is ready; it is ended with the block, whatever happens."""
    with starting_server(folder, through, **settings) as server:
        wait_until_ready(server)
        yield server


@contextmanager
def starting_server(
    folder: Path, through: CommandWrapper = list, /, **settings: object
) -> Iterator[RunningServer]:
    """Start a server on a free port, and go on as soon as it listens.

    Args:
        folder: Where its log and its data go.
        through: Makes of its command line one that does more.
        settings: Its settings, by name.
    """
    log = folder / f"server-{time.monotonic_ns()}.log"
    all_settings = {
        "port": 0,
        "offline": True,
        "log_format": "json",
        "drain_grace_s": 0,
        "data_dir": folder / "data",
        **settings,
    }
    with log.open("w") as errors:
        process = subprocess.Popen(
            through(command("serve")),
            env=environment(**all_settings),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
        )
    try:
        yield RunningServer(process, _address(process, log), log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)


def _address(process: subprocess.Popen[str], log: Path) -> str:
    """Return the URL that a server writes into its log once it listens."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        match = re.search(r'"url": "(http://[^"]+)"', log.read_text())
        if match:
            return match.group(1)
        time.sleep(0.02)
    raise AssertionError(f"the server did not listen:\n{log.read_text()}")


def wait_until_ready(server: RunningServer) -> None:
    """Wait until a server says that it is ready."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    with httpx.Client(base_url=server.url) as client:
        while time.monotonic() < deadline and server.process.poll() is None:
            try:
                if client.get("/health/ready").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                # The server does not listen yet.
                pass
            time.sleep(0.02)
    raise AssertionError(f"the server did not become ready:\n{server.logs()}")
