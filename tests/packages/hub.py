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
    """The server's address and what it was asked for."""

    url: str = ""
    requests: list[str] = field(default_factory=list)
    is_down: bool = False


@contextmanager
def hub_server(repo: str, folder: Path) -> Iterator[StandIn]:
    """Serve a folder as a Hub repository, with its revisions `main` and `v1`."""
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        """Answers what huggingface_hub asks."""

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Stay quiet."""

        def do_HEAD(self) -> None:
            """As GET, without a body."""
            self._answer(with_body=False)

        def do_GET(self) -> None:
            """Model info, or a file."""
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            stand_in.requests.append(f"{self.command} {self.path}")
            path = self.path.split("?")[0]
            if stand_in.is_down:
                self._send(503, b"down", {}, with_body=with_body)
            elif path.startswith(f"/api/models/{repo}/tree/"):
                self._send_tree(with_body=with_body)
            elif path.startswith(f"/api/models/{repo}"):
                self._send_info(path.rpartition("/revision/")[2], with_body=with_body)
            elif path.startswith(f"/{repo}/resolve/"):
                revision, _, name = path.removeprefix(f"/{repo}/resolve/").partition("/")
                self._send_file(revision, folder / name, with_body=with_body)
            else:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body=with_body)

        def _send_tree(self, *, with_body: bool) -> None:
            files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
            tree = [
                {
                    "type": "file",
                    "path": str(p.relative_to(folder)),
                    "size": p.stat().st_size,
                    "oid": hashlib.sha1(p.read_bytes()).hexdigest(),  # noqa: S324 - as git names files
                }
                for p in files
            ]
            self._send(200, json.dumps(tree).encode(), {}, with_body=with_body)

        def _send_info(self, revision: str, *, with_body: bool) -> None:
            commit = commit_of(revision if "/" not in revision else "main")
            if commit is None:
                self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, with_body=with_body)
                return
            names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
            info = {"id": repo, "sha": commit, "siblings": [{"rfilename": n} for n in names]}
            self._send(200, json.dumps(info).encode(), {}, with_body=with_body)

        def _send_file(self, revision: str, path: Path, *, with_body: bool) -> None:
            commit = commit_of(revision)
            if commit is None or not path.is_file():
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body=with_body)
                return
            content = path.read_bytes()
            etag = hashlib.sha256(content).hexdigest()
            self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, with_body=with_body)

        def _send(
            self, status: int, content: bytes, headers: dict[str, str], *, with_body: bool
        ) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def commit_of(revision: str) -> str | None:
    """A branch, tag or commit as a commit."""
    return revision if revision in COMMITS.values() else COMMITS.get(revision or "main")
