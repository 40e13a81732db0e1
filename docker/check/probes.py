"""How docker/check looks at a server from outside: waiting, asking, loading it with requests."""

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Final

from engine import CommandError

TEXT: Final = "Matryoshka dolls nest."
LOAD_INPUTS: Final = 16
REQUEST_TIMEOUT_S: Final = 60


def free_port() -> int:
    """Return a port of the loopback address that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def get(url: str) -> str:
    """Return the body of a page, whatever its status."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Wait until something is so; returns the seconds that it took.

    Raises:
        TimeoutError: It was not so in time.
    """
    began = time.monotonic()
    while True:
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError, CommandError):
            if condition():
                return time.monotonic() - began
        if time.monotonic() - began > timeout_s:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.2)


def wait_ready(url: str, timeout_s: float = 240) -> float:
    """Wait until a server is ready."""

    def is_ready() -> bool:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)

    return wait_until(is_ready, timeout_s, f"{url} is ready")


def embed(url: str, key: str = "") -> tuple[int, list[float]]:
    """Embed the text; returns the status, and the vector where it is 200."""
    body = json.dumps({"input": TEXT}).encode()
    headers = {"content-type": "application/json"} | (
        {"authorization": f"Bearer {key}"} if key else {}
    )
    request = urllib.request.Request(f"{url}/v1/embeddings", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as answer:
            return answer.status, json.load(answer)["data"][0]["embedding"]
    except urllib.error.HTTPError as error:
        return error.code, []


def last_line(log: str) -> str:
    """Return the end of what a container said."""
    return (log.strip().splitlines() or ["nothing"])[-1][:200]


def difference(first: list[float], second: list[float]) -> float:
    """Return the largest difference of two vectors."""
    return max(abs(a - b) for a, b in zip(first, second, strict=True))


def make_load(address: str, statuses: list[int | str], end: threading.Event) -> None:
    """Send requests, each on a connection of its own, until the port is closed or it is over."""
    body = json.dumps({"input": [f"{TEXT} {number}" for number in range(LOAD_INPUTS)]})
    while not end.is_set():
        connection = HTTPConnection(address, 8080, timeout=REQUEST_TIMEOUT_S)
        try:
            connection.connect()
        except OSError:
            return  # nothing was sent, so nothing is lost
        try:
            connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        except Exception as error:  # noqa: BLE001 - any end but an answer is a lost one
            statuses.append(type(error).__name__)
        finally:
            connection.close()
