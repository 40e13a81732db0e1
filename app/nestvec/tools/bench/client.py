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
    """Where requests go."""

    host: str
    port: int
    path: str
    is_tls: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, url: str, headers: Mapping[str, str] | None = None) -> Self:
        """From a URL.

        Raises:
            ValueError: It is not an http or https URL with a host.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"'{url}' is not an http:// or https:// URL")
        is_tls = parts.scheme == "https"
        port = parts.port or (443 if is_tls else 80)
        return cls(parts.hostname, port, parts.path or "/", is_tls, dict(headers or {}))


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body.

    Attributes:
        retry_after: As the header says it; "" where there is none.
    """

    status: int
    body: bytes
    retry_after: str = ""


class _Collector:
    """Gathers what httptools finds in an answer."""

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
    """One kept-alive connection; one request at a time."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        own = "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())
        self._head = (
            f"POST {target.path} HTTP/1.1\r\nhost: {target.host}:{target.port}\r\n"
            f"content-type: application/json\r\n{own}content-length: "
        ).encode()

    async def post(self, body: bytes) -> Answer:
        """Send a body, wait for the whole answer; a connection that the server closed is opened again.

        Raises:
            OSError: The server cannot be reached or broke off.
            ValueError: It does not answer in HTTP.
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
        return Answer(parser.get_status_code(), body, collector.retry_after)

    async def close(self) -> None:
        """Close; a later request opens anew."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
