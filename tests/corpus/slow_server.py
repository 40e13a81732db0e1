"""A server that embeds so many tokens a second, in a time that passes only while all wait: no test waits for it."""

import asyncio
import base64
import json
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import numpy as np
from nestvec.corpus.server_embedder import ServerEmbedder
from typing_extensions import override

Result = TypeVar("Result")
WIDTH = 4


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: the time that it should wait has passed at once."""

    now_s = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; let the time pass where nothing is and something is due later."""
        ready = super().select(0)
        if not ready and timeout is None:
            return super().select(None)
        if not ready and timeout:
            self.now_s += timeout
        return ready


def run_in_no_time(main: Coroutine[Any, Any, Result]) -> tuple[Result, float]:
    """Run a coroutine on a loop whose time jumps; return its result, and how many seconds seemed to pass."""
    selector = _JumpingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now_s  # type: ignore[method-assign] # a clock of its own
    try:
        return loop.run_until_complete(main), selector.now_s
    finally:
        loop.close()


@dataclass
class SlowServer:
    """Embeds one request after the other, `tokens_per_s` tokens a second, and answers 504 after `timeout_s`.

    Attributes:
        tokens_per_s: Its rate.
        timeout_s: How long a request may take, its wait included.
        max_tokens: Most tokens of a request; more are refused.
        refusals: Answers to give before any other, one a request.
        took_s: How long each request took that it answered.
        embedded: How many times each text was embedded.
        failed: Number of requests that it answered with 504.
    """

    tokens_per_s: float
    timeout_s: float = 55.0
    max_tokens: int = 10**9
    refusals: list[httpx.Response] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    embedded: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    _free_at_s: float = 0.0

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer a request as Nestvec does."""
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [MODEL]})
        now_s = asyncio.get_running_loop().time()
        if self.refusals:
            return self.refusals.pop(0)
        texts = json.loads(request.content)["input"]
        tokens = sum(len(text.split()) for text in texts)
        if tokens > self.max_tokens:
            error = {"message": "too many", "param": "input", "code": "max_tokens_per_request"}
            return httpx.Response(400, json={"error": error})
        done_s = max(now_s, self._free_at_s) + tokens / self.tokens_per_s
        if done_s - now_s > self.timeout_s:
            self.failed += 1
            await asyncio.sleep(self.timeout_s)
            return httpx.Response(504, json={"error": {"message": "too slow", "code": "deadline"}})
        self._free_at_s = done_s
        await asyncio.sleep(done_s - now_s)
        self.took_s.append(done_s - now_s)
        for text in texts:
            self.embedded[text] = self.embedded.get(text, 0) + 1
        data = [
            {"embedding": base64.b64encode(vector_of(text).tobytes()).decode()} for text in texts
        ]
        return httpx.Response(200, json={"data": data, "usage": {"total_tokens": tokens}})

    def client(self) -> ServerEmbedder:
        """Return a client of this server; to be made where the loop runs."""
        clock: Callable[[], float] = asyncio.get_running_loop().time
        embedder = ServerEmbedder("http://slow", key="", model="", clock=clock)
        transport = httpx.MockTransport(self.answer)
        embedder._server.http = httpx.AsyncClient(transport=transport, base_url="http://slow")
        return embedder


MODEL = {
    "id": "slow",
    "root": "slow",
    "aliases": [],
    "dimensions": {"native": WIDTH},
    "max_model_len": 512,
    "quantization": {"id": "q"},
    "space": "s",
    "source": "test",
}


def vector_of(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a vector by which a text is known again."""
    return np.array([len(text), *text.encode()[: WIDTH - 1]], np.float32)
