"""A server of one's own on this machine, started by the command that serves, and what it uses."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

from prometheus_client.parser import text_string_to_metric_families

from nestvec.errors import ModelError

READY_TIMEOUT_S: Final = 600.0
POLL_S: Final = 0.05
END_TIMEOUT_S: Final = 30.0
# Fields of proc(5)'s stat after the process's name.
STAT_UTIME, STAT_STIME = 11, 12
PREFIX: Final = "NESTVEC_"
OK: Final = 200
BATCH_SECONDS: Final = "nestvec_engine_duration_seconds"
BATCH_TOKENS: Final = "nestvec_batch_tokens"


class BatchTotals(NamedTuple):
    """What a server's workers have run so far.

    Attributes:
        batches: How many.
        tokens: Tokens of them.
        run_s: Seconds that they took, added up.
    """

    batches: float
    tokens: float
    run_s: float

    @classmethod
    def of(cls, metrics: str) -> Self:
        """Read them from what `/metrics` answers."""
        totals: dict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(metrics):
            if family.name in (BATCH_SECONDS, BATCH_TOKENS):
                for sample in family.samples:
                    totals[sample.name] += sample.value
        return cls(
            totals[f"{BATCH_SECONDS}_count"],
            totals[f"{BATCH_TOKENS}_sum"],
            totals[f"{BATCH_SECONDS}_sum"],
        )


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A running server.

    Attributes:
        url: Where it listens.
        pid: Its process.
        start_s: Seconds from its start to its first answer.
    """

    url: str
    pid: int
    start_s: float

    def cpu_s(self) -> float:
        """Return the CPU seconds of all its threads so far."""
        return process_cpu_s(Path(f"/proc/{self.pid}/stat"))

    def event_loop_cpu_s(self) -> float:
        """Return the CPU seconds of the thread that speaks HTTP so far: the process's first."""
        return process_cpu_s(Path(f"/proc/{self.pid}/task/{self.pid}/stat"))

    def batch_s(self) -> float:
        """Return the seconds that its workers have run batches so far, added up."""
        return BatchTotals.of(self.metrics()).run_s

    def metrics(self) -> str:
        """Return what `/metrics` answers."""
        with urllib.request.urlopen(f"{self.url}/metrics") as answer:  # noqa: S310 - http, as made below
            return str(answer.read(), "utf-8")

    def peak_bytes(self) -> int:
        """Return the most resident memory that it has held."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


@contextmanager
def own_server(settings: Mapping[str, object]) -> Iterator[OwnServer]:
    """Start a server with some settings, without a vector cache or files, and end it after the block.

    Nothing else of this process's settings reaches it, so that neither keys nor limits stand in the way.

    Args:
        settings: Values by name; None is left out.

    Raises:
        ModelError: It does not start.
    """
    port = _free_port()
    given = {name: value for name, value in settings.items() if value is not None} | {
        "host": "127.0.0.1",
        "port": port,
        "vector_cache_bytes": 0,
        "files_api": False,
        "http_processes": 0,
        "log_level": "warning",
    }
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    env |= {f"{PREFIX}{name.upper()}": _text(value) for name, value in given.items()}
    with tempfile.TemporaryDirectory(prefix="nestvec-bench-") as folder:
        env[f"{PREFIX}DATA_DIR"] = folder
        log = Path(folder) / "server.log"
        began_s = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "nestvec", "serve"], stdout=output, stderr=output, env=env
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(process, url, log)
            yield OwnServer(url, process.pid, time.monotonic() - began_s)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Wait until a server is ready.

    Raises:
        ModelError: It ended, or is not ready in time.
    """
    until_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < until_s:
        if process.poll() is not None:
            last = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise ModelError(f"the server to measure did not start: {''.join(last) or 'no reason'}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health/ready") as answer:  # noqa: S310 - http, as made above
            if answer.status == OK:
                return
        time.sleep(POLL_S)
    raise ModelError(f"the server to measure is not ready after {READY_TIMEOUT_S:g} s")


def _free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _text(value: object) -> str:
    """Return a setting's value as an environment variable holds it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def process_cpu_s(stat: Path) -> float:
    """Return the CPU seconds that a process or thread has used, by its file of proc(5)."""
    fields = stat.read_text().rsplit(")", 1)[1].split()
    return (int(fields[STAT_UTIME]) + int(fields[STAT_STIME])) / os.sysconf("SC_CLK_TCK")
