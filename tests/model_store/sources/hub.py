"""A small stand-in of the Hub: model info and files of one repository, over HTTP on loopback."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from typing_extensions import override

COMMITS = {"main": "a" * 40, "v1": "b" * 40}


@dataclass
class StandIn:
    """The server's address, the requests it got, and how it misbehaves."""

    url: str = ""
    requests: list[str] = field(default_factory=list)
    is_down: bool = False
    is_meddling: bool = False


class Handler(BaseHTTPRequestHandler):
    """Answers what huggingface_hub requests."""

    server: "HubServer"

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""

    def do_HEAD(self) -> None:
        """Answer as GET, without a body."""
        self._answer()

    def do_GET(self) -> None:
        """Answer with model info, the list of files, or a file."""
        self._answer()

    def _answer(self) -> None:
        hub = self.server
        hub.stand_in.requests.append(f"{self.command} {self.path}")
        path = self.path.split("?")[0]
        if hub.stand_in.is_down:
            self._send(503, b"down")
        elif path.startswith(f"/api/models/{hub.repo}/tree/"):
            self._send(200, json.dumps(hub.tree()).encode())
        elif path.startswith(f"/api/models/{hub.repo}"):
            self._send_info(path.rpartition("/revision/")[2])
        elif path.startswith(f"/{hub.repo}/resolve/"):
            revision, _, name = path.removeprefix(f"/{hub.repo}/resolve/").partition("/")
            self._send_file(revision, hub.folder / name)
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _send_info(self, revision: str) -> None:
        commit = commit_of(revision if "/" not in revision else "main")
        if commit is None:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [
            {"rfilename": file["path"], "size": file["size"], **self._lfs(file)}
            for file in self.server.tree()
        ]
        info = {"id": self.server.repo, "sha": commit, "siblings": siblings}
        self._send(200, json.dumps(info).encode())

    def _lfs(self, file: dict[str, Any]) -> dict[str, Any]:
        """Return what the Hub says of large files when it is asked for more than their names."""
        if "blobs" not in self.path or not file["path"].endswith(".safetensors"):
            return {}
        content = (self.server.folder / file["path"]).read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        return {"blobId": "x", "lfs": {"sha256": sha256, "size": file["size"], "pointerSize": 134}}

    def _send_file(self, revision: str, path: Path) -> None:
        commit = commit_of(revision)
        if commit is None or not path.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        content = path.read_bytes()
        if self.server.stand_in.is_meddling and path.name.endswith(".safetensors"):
            content = content[:-1] + bytes([content[-1] ^ 1])
        etag = hashlib.sha256(content).hexdigest()
        self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


class HubServer(ThreadingHTTPServer):
    """Serves one repository."""

    def __init__(self, repo: str, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repo = repo
        self.folder = folder
        self.stand_in = StandIn(url=f"http://127.0.0.1:{self.server_address[1]}")

    def tree(self) -> list[dict[str, Any]]:
        """List all files as the Hub does."""
        return [
            {
                "type": "file",
                "path": str(path.relative_to(self.folder)),
                "size": path.stat().st_size,
                "oid": hashlib.sha1(path.read_bytes()).hexdigest(),  # noqa: S324 - as git names files
            }
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        ]


@contextmanager
def hub_server(repo: str, folder: Path) -> Iterator[StandIn]:
    """Serve a folder as a Hub repository, with its revisions `main` and `v1`."""
    server = HubServer(repo, folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def commit_of(revision: str) -> str | None:
    """Resolve a branch, tag or commit to a commit."""
    return revision if revision in COMMITS.values() else COMMITS.get(revision or "main")
