"""An offline server: nothing that a caller sends makes it call out."""

import hashlib
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from nestvec.api import token_input
from nestvec.api.token_input import TABLE_URL, TokenDecoder
from nestvec.errors import InputError

from tests.api.applications import MakeApi
from tests.api.http.test_auth import _paths

BODIES: tuple[dict[str, Any], ...] = (
    {"input": [[1, 2, 3]], "inputs": [[1, 2, 3]]},
    {"input": [1, 2, 3], "ids": [[1, 2]], "model": "https://example.org/model"},
    {"input": "https://example.org/a", "inputs": ["https://example.org/a"], "prompt": "a"},
    {"input": [{"image": "https://example.org/a.png"}], "images": ["https://example.org/a.png"]},
    {"model": "org/other-model", "name": "org/other-model", "query": "a", "documents": ["b"]},
)


class CalledOutError(Exception):
    """The server has looked up a name, or opened a connection."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Collect every attempt to look a name up or to connect, and let none succeed."""
    seen: list[str] = []

    def refuse(*arguments: object, **_: object) -> None:
        seen.append(repr(arguments[-1]))
        raise CalledOutError

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "tiktoken"))
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    return seen


async def test_no_request_makes_an_offline_server_call_out(
    make_api: MakeApi, calls: list[str]
) -> None:
    """Token arrays, URLs and foreign models on every route: no name is looked up and no connection opened."""
    api = make_api(offline=True, admin_api=True)
    for path, methods in _paths(api):
        url = re.sub(r"\{[^}]*\}", "x", path)
        for method in methods - {"OPTIONS"}:
            for body in BODIES if method == "POST" else (None,):
                await api.client.request(method, url, json=body)
    assert calls == []
    refused = await api.embed(BODIES[0])
    assert refused.status_code == 400
    assert "cl100k_file" in refused.text


async def test_the_guard_sees_a_call_out(make_api: MakeApi, calls: list[str]) -> None:
    """Online, the same token array has the table fetched: what the test above looks for is there to be seen."""
    api = make_api(offline=False)
    await api.embed(BODIES[0])
    assert calls != []


async def test_offline_a_cached_table_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calls: list[str]
) -> None:
    """A table that tiktoken has cached before is used offline, where its hash is right; nothing is fetched."""
    folder = tmp_path / "tiktoken"
    folder.mkdir()
    table = b"aGVsbG8= 0\nIHdvcmxk 1\n"
    name = hashlib.sha1(TABLE_URL.encode(), usedforsecurity=False).hexdigest()
    (folder / name).write_bytes(table)
    decoder = TokenDecoder("auto", is_offline=True)
    with pytest.raises(InputError, match="ValueError"):
        await decoder.resolve([[0, 1]], vocabulary=None)
    monkeypatch.setattr(token_input, "TABLE_SHA256", hashlib.sha256(table).hexdigest())
    (folder / name).write_bytes(table)
    decoder = TokenDecoder("auto", is_offline=True)
    assert await decoder.resolve([[0, 1]], vocabulary=None) == ["hello world"]
    assert calls == []
