"""Real services of a test's own: PostgreSQL, Redis, Prometheus, an S3 store; on free ports, ended with the test.

They come from the system's packages (Debian: `postgresql`, `redis-server`, `prometheus`) and from moto; a test whose
service is not there is skipped, with the reason.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

POSTGRES_FOLDERS: Final = "/usr/lib/postgresql/*/bin"
START_S: Final = 60.0
BUCKET: Final = "nestvec"
S3_SCRIPT: Final = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=True)
"""


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Service:
    """A running service.

    Attributes:
        command: What runs it.
        folder: Where its data and its log are.
        port: Where it listens, on 127.0.0.1.
        url: Its URL, as the settings of a server take it.
        environment: Variables that its clients need besides.
        ready: A command that ends with 0 once it answers, or what asks it; by default it is enough that it takes
            connections.
    """

    command: Sequence[str]
    folder: Path
    port: int
    url: str
    environment: dict[str, str] = field(default_factory=dict)
    ready: Sequence[str] | Callable[[], bool] = ("true",)
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            AssertionError: It ends before it does, or takes too long.
        """
        log = self.folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command, stdout=output, stderr=output, start_new_session=True, cwd="/"
            )
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            if self._answers():
                return
            time.sleep(0.05)
        self.stop(signal.SIGKILL)
        raise AssertionError(f"the service did not start:\n{log.read_text()}")

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            if callable(self.ready):
                return self.ready()
            return subprocess.run(self.ready, capture_output=True, check=False).returncode == 0
        return False

    def stop(self, how: int = signal.SIGINT) -> None:
        """End it: PostgreSQL takes SIGINT for "now, but cleanly", and SIGQUIT for a crash."""
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, how)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(20)
        self._process = None


@contextmanager
def postgres_server() -> Iterator[Service]:
    """A PostgreSQL of the test's own, with one database; its superuser needs no password."""
    found = sorted(Path("/").glob(f"{POSTGRES_FOLDERS.removeprefix('/')}/postgres"))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    tools, port = found[-1].parent, free_port()
    # PostgreSQL refuses to run as root, and its user may not pass through pytest's private folders.
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="nestvec-postgres-") as name:
        folder = Path(name)
        if prefix:
            shutil.chown(folder, "postgres")
        data = str(folder / "data")
        make = ["-D", data, "-U", "nestvec", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            [*prefix, str(tools / "initdb"), *make], check=True, capture_output=True, cwd="/"
        )
        options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        options += ["-c", "unix_socket_directories=", "-c", "max_connections=200"]
        url = f"postgresql+psycopg://nestvec@127.0.0.1:{port}/postgres"
        command = [*prefix, str(tools / "postgres"), "-D", data, *options]
        ready = [str(tools / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        service = Service(command, folder, port, url, ready=ready)
        service.start()
        try:
            yield service
        finally:
            service.stop()


@contextmanager
def redis_server(folder: Path) -> Iterator[Service]:
    """A Redis of the test's own, which keeps nothing on the disk."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis is not installed (Debian: apt-get install redis-server)")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(folder),
    ]
    service = Service(command, folder, port, f"redis://127.0.0.1:{port}/0")
    service.start()
    try:
        yield service
    finally:
        service.stop(signal.SIGTERM)


@contextmanager
def prometheus_server(folder: Path, configuration: Mapping[str, Any]) -> Iterator[Service]:
    """A Prometheus of the test's own.

    Args:
        folder: Where its data go; rule files that the configuration names lie there.
        configuration: What it scrapes and evaluates.
    """
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Prometheus is not installed (Debian: apt-get install prometheus)")
    file, port = folder / "prometheus.yml", free_port()
    file.write_text(json.dumps(configuration), "utf-8")
    url = f"http://127.0.0.1:{port}"
    command = [program, f"--config.file={file}", f"--storage.tsdb.path={folder / 'prometheus'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]

    def is_ready() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{url}/-/ready").is_success
        return False

    service = Service(command, folder, port, url, ready=is_ready)
    service.start()
    try:
        yield service
    finally:
        service.stop(signal.SIGTERM)


@contextmanager
def s3_server(folder: Path) -> Iterator[Service]:
    """An S3 store of the test's own with one bucket; its objects live in its memory."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
    }
    command = [sys.executable, "-c", S3_SCRIPT, str(port)]
    service = Service(command, folder, port, f"s3://{BUCKET}/files", environment)
    service.start()
    try:
        make_bucket(service)
        yield service
    finally:
        service.stop(signal.SIGTERM)


def make_bucket(service: Service) -> None:
    """Make the bucket of an S3 store, empty as it is after each start."""
    endpoint = service.environment["AWS_ENDPOINT_URL"]
    httpx.put(f"{endpoint}/{BUCKET}").raise_for_status()
