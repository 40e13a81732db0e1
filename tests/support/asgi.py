"""Requests that come in on a certain port, without a server."""

from urllib.parse import unquote

from starlette.types import ASGIApp, Message


async def ask(app: ASGIApp, path: str, port: int, method: str = "GET") -> tuple[int, str]:
    """Return the status of a request that comes in on a port, and the path of the route that was matched."""
    statuses: list[int] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(int(str(message["status"])))

    scope = {
        "type": "http",
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"authorization", b"Bearer k")],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", port),
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return statuses[0], getattr(scope.get("route"), "path", "")
