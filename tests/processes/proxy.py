"""A balancer as plain as can be: it asks each server whether it is ready, and passes requests on to ready ones."""

import asyncio
import itertools
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

POLL_S = 0.05


@dataclass
class Balancer:
    """A balancer in front of servers.

    Attributes:
        urls: URLs of the servers.
        ready: URLs of those that said last that they are ready.
    """

    urls: list[str]
    ready: set[str] = field(default_factory=set)
    _turn: "itertools.count[int]" = field(default_factory=itertools.count)
    _tasks: "list[asyncio.Task[None]]" = field(default_factory=list)

    async def __aenter__(self) -> "Balancer":
        self._client = httpx.AsyncClient(timeout=60)
        self._tasks = [asyncio.create_task(self._watch(url)) for url in self.urls]
        await self.until_ready(len(self.urls))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def until_ready(self, count: int) -> None:
        """Wait until so many servers are ready."""
        async with asyncio.timeout(60):
            while len(self.ready) < count:
                await asyncio.sleep(0.02)

    async def until_gone(self, url: str) -> None:
        """Wait until a server says that it is not ready."""
        async with asyncio.timeout(60):
            while url in self.ready:
                await asyncio.sleep(0.02)

    async def post(self, path: str, body: object) -> httpx.Response:
        """Pass a request on, once.

        Raises:
            httpx.TransportError: The request was lost.
        """
        servers = sorted(self.ready)
        return await self._client.post(servers[next(self._turn) % len(servers)] + path, json=body)

    async def _watch(self, url: str) -> None:
        async with httpx.AsyncClient() as client:
            while True:
                is_ready = False
                with suppress(httpx.TransportError):
                    is_ready = (await client.get(f"{url}/health/ready")).is_success
                (self.ready.add if is_ready else self.ready.discard)(url)
                await asyncio.sleep(POLL_S)
