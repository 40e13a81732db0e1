"""Puts load on a server: closed (a number of connections, always busy) or open (requests at a fixed mean rate).

An open load times each request from when it was due, not from when it could be sent: a server that stalls makes
every request behind the stall late, as it would for real callers (coordinated omission is avoided).
"""

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import numpy as np
import orjson

from nestvec.tools.bench.client import Connection, Target

PROMPT_TOKENS: Final = re.compile(rb'"prompt_tokens"\s*:\s*(\d+)')
OK: Final = 200
# Of an open load; requests beyond these wait, and their waiting time counts.
MAX_CONNECTIONS: Final = 512
# A response's usage mostly stands within its last bytes.
TAIL_BYTES: Final = 300


@dataclass(slots=True)
class LoadResult:
    """What was measured under load.

    Attributes:
        started_s: When the load began, by `time.perf_counter`.
        duration_s: Seconds from the first request to the last response.
        latencies_s: Seconds of each request that was answered with 200; of an open load from when it was due.
        answered_s: When each of these was answered, in seconds from the start; as long as `latencies_s`, in order.
        statuses: Number of responses by HTTP status; 0 for requests without a response.
        retry_after_s: Number of refusals by the seconds of their Retry-After header.
        texts: Number of inputs that were answered with 200.
        tokens: Number of their tokens, as the server counted them.
    """

    started_s: float = field(default_factory=time.perf_counter)
    duration_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    answered_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    retry_after_s: Counter[int] = field(default_factory=Counter)
    texts: int = 0
    tokens: int = 0

    def percentile_s(self, share: float) -> float:
        """Return a percentile (0 to 100) of the latencies; NaN where there is none."""
        return float(np.percentile(self.latencies_s, share)) if self.latencies_s else float("nan")

    @property
    def errors(self) -> int:
        """Number of requests that were not answered with 200."""
        return sum(count for status, count in self.statuses.items() if status != OK)


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A request for embeddings.

    Attributes:
        body: The JSON body.
        texts: Number of texts in it.
    """

    body: bytes
    texts: int


def embedding_requests(
    texts: Sequence[str], texts_per_request: int, model: str
) -> Iterator[LoadRequest]:
    """Yield embedding requests without end, in base64 as SDKs ask for; a counter keeps texts unique."""
    numbers = count()
    chooser = random.Random(0)  # noqa: S311 - variety, no secret
    while True:
        inputs = [f"{next(numbers)} {text}" for text in chooser.choices(texts, k=texts_per_request)]
        # Some servers know `truncate`; those that do not ignore it.
        body = {"model": model, "input": inputs, "encoding_format": "base64", "truncate": True}
        yield LoadRequest(orjson.dumps(body), texts_per_request)


async def closed_load(
    target: Target,
    requests: Iterable[LoadRequest],
    *,
    connections: int,
    duration_s: float,
    heeds_retry_after: bool = False,
) -> LoadResult:
    """Keep a number of connections busy until the time is over or the requests run out.

    Args:
        target: Where requests go.
        requests: What is sent.
        connections: Number of connections.
        duration_s: After so long no request is begun.
        heeds_retry_after: Whether a connection that was refused pauses for as long as it was told to, as SDKs do.
    """
    result, source = LoadResult(), iter(requests)
    until = result.started_s + duration_s

    async def keep_busy() -> None:
        connection = Connection(target)
        try:
            while time.perf_counter() < until and (request := next(source, None)) is not None:
                wait_s = await _send(connection, request, result, due=time.perf_counter())
                if heeds_retry_after:
                    await asyncio.sleep(max(0.0, min(wait_s, until - time.perf_counter())))
        finally:
            await connection.close()

    await asyncio.gather(*(keep_busy() for _ in range(connections)))
    result.duration_s = time.perf_counter() - result.started_s
    return result


async def open_load(
    target: Target,
    requests: Iterable[LoadRequest],
    *,
    rate_per_s: float,
    duration_s: float,
    seed: int = 0,
) -> LoadResult:
    """Send requests at random times (Poisson) of a fixed mean rate, whether or not earlier ones were answered."""
    # The connection that was used last is used next, as pools of clients do: no more are opened than are needed.
    result, source, free = LoadResult(), iter(requests), asyncio.LifoQueue[Connection]()
    for _ in range(MAX_CONNECTIONS):
        free.put_nowait(Connection(target))
    in_flight: set[asyncio.Task[None]] = set()

    async def send(request: LoadRequest, due: float) -> None:
        connection = await free.get()
        try:
            await _send(connection, request, result, due=due)
        finally:
            free.put_nowait(connection)

    started = result.started_s = time.perf_counter()
    for due_s in arrivals(rate_per_s, duration_s, seed):
        await asyncio.sleep(max(0.0, started + due_s - time.perf_counter()))
        request = next(source, None)
        if request is None:
            break
        task = asyncio.create_task(send(request, started + due_s))
        in_flight.add(task)
        task.add_done_callback(in_flight.discard)
    await asyncio.gather(*in_flight)
    result.duration_s = time.perf_counter() - started
    while not free.empty():
        await free.get_nowait().close()
    return result


def arrivals(rate_per_s: float, duration_s: float, seed: int) -> Iterator[float]:
    """Yield the times at which requests are due, in seconds from the start, as a Poisson process."""
    chooser = random.Random(seed)  # noqa: S311 - variety, no secret
    due_s = chooser.expovariate(rate_per_s)
    while due_s < duration_s:
        yield due_s
        due_s += chooser.expovariate(rate_per_s)


async def _send(
    connection: Connection, request: LoadRequest, result: LoadResult, *, due: float
) -> float:
    """Send a request, count what comes of it, and return the seconds that the server asks to wait; 0 for none."""
    try:
        response = await connection.post(request.body)
    except (OSError, ValueError):
        result.statuses[0] += 1
        await connection.close()
        # A server that is gone must not make the caller spin.
        await asyncio.sleep(0.01)
        return 0.0
    result.statuses[response.status] += 1
    wait_s = int(response.retry_after) if response.retry_after.isdigit() else 0
    if wait_s:
        result.retry_after_s[wait_s] += 1
    if response.status != OK:
        return float(wait_s)
    now_s = time.perf_counter()
    result.latencies_s.append(now_s - due)
    result.answered_s.append(now_s - result.started_s)
    result.texts += request.texts
    # The usage stands at an end of the body, so that no parser need walk through the vectors.
    tail_start = max(0, len(response.body) - TAIL_BYTES)
    usage = PROMPT_TOKENS.search(response.body, tail_start) or PROMPT_TOKENS.search(response.body)
    result.tokens += int(usage.group(1)) if usage else 0
    return 0.0
