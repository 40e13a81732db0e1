"""Starts servers as processes, waits for them, counts their CPU time and memory, and stops them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

READY_TIMEOUT_S: Final = 180
NESTVEC: Final = Path(sys.executable).parent / "nestvec"
# Indices of fields of /proc/<pid>/stat after the process's name.
STAT_PPID, STAT_UTIME, STAT_STIME = 1, 11, 12


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Server:
    """A server's process and its children.

    Attributes:
        name: Its name in reports.
        command: Its command line, with "{port}" where the port goes.
        health: Path that answers 200 once the server is ready.
        env: Variables on top of this process's own.
        port: Port that it listens on.
        log: File for its output.
        folder: Its working folder; None for this process's own.
        ready_timeout_s: How long its start may take.
        process: The process, once it is started.
    """

    name: str
    command: list[str]
    health: str = "/health"
    env: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    log: Path = Path(os.devnull)
    folder: Path | None = None
    ready_timeout_s: float = READY_TIMEOUT_S
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """The URL that it listens on."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it is ready.

        Raises:
            SystemExit: The server ended, or is not ready in time.
        """
        command = [part.format(port=self.port) for part in self.command]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
                cwd=self.folder,
            )
        until = time.monotonic() + self.ready_timeout_s
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise SystemExit(
                    f"{self.name} ended with {self.process.returncode}: see {self.log}"
                )
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(self.url + self.health, timeout=2).is_success:
                    return
            time.sleep(0.1)
        raise SystemExit(
            f"{self.name} is not ready after {self.ready_timeout_s:g} s: see {self.log}"
        )

    def stop(self) -> None:
        """End the server, by force if it does not end in 30 s."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def cpu_s(self) -> float:
        """Return the CPU seconds of the process and its living children so far."""
        ticks = sum(
            int(stat[STAT_UTIME]) + int(stat[STAT_STIME]) for stat in map(_stat, self._family())
        )
        return ticks / os.sysconf("SC_CLK_TCK")

    def peak_rss_mb(self) -> float:
        """Return the peak memory so far in MB, the sum over the process and its children."""
        return sum(map(peak_rss_mb, self._family()))

    def reset_peak_rss(self) -> None:
        """Have the peak memory counted anew from here."""
        for pid in self._family():
            reset_peak_rss(pid)

    def _family(self) -> list[int]:
        assert self.process is not None
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parents[int(entry.name)] = int(_stat(int(entry.name))[STAT_PPID])
                except (OSError, IndexError):
                    # The process has ended meanwhile.
                    continue
        family = [self.process.pid]
        for pid in family:
            family += [child for child, parent in parents.items() if parent == pid]
        return family


def nestvec(name: str, precision: str, logs: Path, *flags: str) -> Server:
    """Return our server in a precision, with further flags of `nestvec serve`."""
    command = [str(NESTVEC), "serve", "--offline", "--port", "{port}", "--precision", precision]
    command += ["--truncate", "end", "--accept-any-model", "--data-dir", str(logs / f"{name} data")]
    # The model is measured, not the cache.
    command += ["--vector-cache-bytes", "0", *flags]
    return Server(name, command, health="/health/ready", log=logs / f"{name}.log")


def reset_peak_rss(pid: int) -> None:
    """Have the peak memory of a process counted anew from here; proc(5), clear_refs."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_rss_mb(pid: int) -> float:
    """Return the peak memory of a process so far, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat after the name, which may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
