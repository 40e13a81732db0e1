"""Offers of other protocols on every kind of route of a real server with an HTTP process of its own."""

import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.server import RunningServer, running_server
from tests.support.tiny import write_tiny_bert

pytestmark = pytest.mark.process
OFFERS = {
    "h2c": b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n",
    "websocket": b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n",
    "TLS": b"upgrade: TLS/1.0\r\nconnection: Upgrade\r\n",
}
FORM = (
    b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b\r\ncontent-disposition: form-data; '
    b'name="file"; filename="a.jsonl"\r\n\r\nUpgrade: h2c\r\n\r\n--b--\r\n'
)
ROUTES: dict[str, tuple[bytes, bytes]] = {
    path: (b"application/json", json.dumps(body).encode())
    for path, body in {
        "/v1/embeddings": {"input": "alpha"},
        "/embed": {"inputs": "alpha"},
        "/embed_all": {"inputs": "alpha"},
        "/tokenize": {"inputs": "alpha"},
        "/api/embed": {"model": "any", "input": "alpha"},
        "/v2/embed": {"model": "any", "texts": ["alpha"], "input_type": "search_query"},
        "/v1/none": {"input": "alpha"},
    }.items()
}
ROUTES["/v1/files"] = (b"multipart/form-data; boundary=b", FORM)
ROUTES["/v1/models"] = (b"text/plain", b"")
ROUTES["/health/ready"] = (b"text/plain", b"")


def ask(server: RunningServer, path: str, offer: bytes, *, chunked: bool) -> tuple[bytes, int]:
    """Send a request in two pieces with another one behind it; return the first status, and how many answers came."""
    kind, body = ROUTES[path]
    method = b"POST" if body else b"GET"
    head = b"%b %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: %b\r\n%b" % (
        method,
        path.encode(),
        kind,
        offer,
    )
    if chunked and body:
        middle = len(body) // 2
        pieces = (b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:middle], body[middle:]))
        request = head + b"transfer-encoding: chunked\r\n\r\n" + b"".join(pieces) + b"0\r\n\r\n"
    else:
        request = head + b"content-length: %d\r\n\r\n" % len(body) + body
    request += b"GET /health/live HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(request[: len(head) + 9])
        connection.sendall(request[len(head) + 9 :])
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    return answer.split(b" ", 2)[1], answer.count(b"HTTP/1.1 ")


def test_offers_change_nothing(tmp_path: Path) -> None:
    """Each route answers behind an offer as without one, in either framing, and the request behind is served."""
    write_tiny_bert(tmp_path / "model")
    chosen: dict[str, Any] = {
        "model": tmp_path / "model",
        "cache_dir": tmp_path / "cache",
        "model_aliases": "any",
    }
    with running_server(tmp_path, **chosen, http_processes=1) as server:
        for path in ROUTES:
            expected = (b"404" if path == "/v1/none" else b"200", 2)
            assert ask(server, path, b"", chunked=False) == expected, path
            for offer in OFFERS.values():
                for chunked in (False, True):
                    assert ask(server, path, offer, chunked=chunked) == expected, (path, offer)
        assert "Unsupported upgrade" not in server.logs()
        assert "pip install" not in server.logs()
