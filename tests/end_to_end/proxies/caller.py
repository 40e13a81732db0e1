"""A caller as plain as can be: a connection, one request after the other, and never a second try."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        status: Its status.
        headers: Its headers, by their names in lower case.
        body: Its body.
    """

    status: int
    headers: dict[str, str]
    body: bytes


class Caller:
    """Calls a proxy over one connection, which is made anew where the proxy has said that it closes it.

    httpx costs more than the servers that it calls here, and this one sends head and body apart, as most clients do.

    Args:
        port: The proxy's port on this machine.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        writer = self._writer
        self._close()
        if writer is not None:
            with suppress(OSError):
                await writer.wait_closed()

    async def post(self, path: str, body: Any, content_type: str = "application/json") -> Reply:
        """POST a body: bytes as they are, anything else as JSON.

        Raises:
            OSError: The connection failed.
            EOFError: It was closed before the answer was whole.
            TimeoutError: No answer came.
        """
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {content_type}\r\n"
            f"content-length: {len(content)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if self._writer is None:
                    self._reader, self._writer = await asyncio.open_connection(
                        "127.0.0.1", self._port
                    )
                self._writer.write(head.encode())
                await asyncio.sleep(0)
                self._writer.write(content)
                return await self._read()
        except BaseException:
            self._close()
            raise

    async def _read(self) -> Reply:
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        pairs = (line.partition(":") for line in lines[1:] if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self._reader.readline(), 16):
                body += await self._reader.readexactly(size)
                await self._reader.readline()
            await self._reader.readline()
        else:
            body = await self._reader.readexactly(int(headers["content-length"]))
        if headers.get("connection", "").lower() == "close":
            self._close()
        return Reply(status, headers, body)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None
