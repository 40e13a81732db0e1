"""A light HTTP/1.1 connection for load tests.

The client of a load test shares the machine with the server, so it must cost little: httpx takes about ten times
the CPU of this for a request.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

import httptools

CHUNK_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go.

    Attributes:
        host: Host name or address.
        port: TCP port.
        path: Path of the URL.
        is_tls: Whether the connection is encrypted.
        headers: Headers that every request has.
    """

    host: str
    port: int
    path: str
    is_tls: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, url: str, headers: Mapping[str, str] | None = None) -> Self:
        """Return the target of a URL.

        Raises:
            ValueError: The text is no http or https URL with a host.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"'{url}' is not an http:// or https:// URL")
        is_tls = parts.scheme == "https"
        port = parts.port or (443 if is_tls else 80)
        return cls(parts.hostname, port, parts.path or "/", is_tls, dict(headers or {}))


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response.

    Attributes:
        status: Status code.
        body: The whole body.
        retry_after: Value of the Retry-After header; empty where there is none.
    """

    status: int
    body: bytes
    retry_after: str = ""


class _Collector:
    """Collects what httptools parses of a response; the methods are its callbacks."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.is_complete = False
        self.closes = False
        self.retry_after = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"connection":
            self.closes = value.lower() == b"close"
        elif name.lower() == b"retry-after":
            self.retry_after = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        self.is_complete = True


class Connection:
    """A kept-alive HTTP/1.1 connection that takes one request at a time.

    Args:
        target: Where requests go.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        headers = "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())
        self._head = (
            f"POST {target.path} HTTP/1.1\r\nhost: {target.host}:{target.port}\r\n"
            f"content-type: application/json\r\n{headers}content-length: "
        ).encode()

    async def post(self, body: bytes) -> Response:
        """Send a body and return the whole response; a connection that the server closed is opened again.

        Raises:
            OSError: The server cannot be reached, or closed the connection.
            ValueError: The server does not answer in HTTP.
        """
        if self._writer is None or self._writer.is_closing():
            context = ssl.create_default_context() if self._target.is_tls else None
            self._reader, self._writer = await asyncio.open_connection(
                self._target.host, self._target.port, ssl=context
            )
        reader = self._reader
        if reader is None:
            raise ConnectionError("not connected")
        self._writer.write(self._head + str(len(body)).encode() + b"\r\n\r\n" + body)
        await self._writer.drain()
        collector = _Collector()
        parser = httptools.HttpResponseParser(collector)
        while not collector.is_complete:
            data = await reader.read(CHUNK_BYTES)
            if not data:
                await self.close()
                raise ConnectionError("the server closed the connection")
            try:
                parser.feed_data(data)
            except httptools.HttpParserError as error:
                raise ValueError("not an HTTP answer") from error
        if collector.closes:
            await self.close()
        body = b"".join(collector.parts)
        return Response(parser.get_status_code(), body, collector.retry_after)

    async def close(self) -> None:
        """Close the connection; a later request opens a new one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
