"""Load on a server: closed (so many connections, always busy) or open (so many requests a second, whatever happens).

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

USAGE: Final = re.compile(rb'"prompt_tokens"\s*:\s*(\d+)')
OK: Final = 200
MOST_CONNECTIONS: Final = 512  # of an open load; requests beyond wait, and their time counts


@dataclass(slots=True)
class LoadResult:
    """What a load found.

    Attributes:
        duration_s: From the first request to the last answer.
        latencies_s: Of good answers; of an open load from when each was due.
        statuses: Answers by HTTP status; 0 for none.
        retry_after_s: What refusals said of when to come again.
        texts: Inputs answered well.
        tokens: As the server counted them.
    """

    duration_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    retry_after_s: Counter[int] = field(default_factory=Counter)
    texts: int = 0
    tokens: int = 0

    def percentile_s(self, share: float) -> float:
        """Latency that so many of 100 good answers stay within; NaN where there is none."""
        return float(np.percentile(self.latencies_s, share)) if self.latencies_s else float("nan")

    @property
    def errors(self) -> int:
        """Requests that were not answered with 200."""
        return sum(n for status, n in self.statuses.items() if status != OK)


@dataclass(frozen=True, slots=True)
class Request:
    """A body and how many texts are in it."""

    body: bytes
    texts: int


def requests_of(texts: Sequence[str], each: int, model: str) -> Iterator[Request]:
    """Endless embedding requests of so many texts; base64, as SDKs ask for; a counter keeps texts unique."""
    numbers = count()
    chooser = random.Random(0)  # noqa: S311 - variety, no secret
    while True:
        chosen = [f"{next(numbers)} {text}" for text in chooser.choices(texts, k=each)]
        # `truncate` is ours and others': servers that do not know it ignore it.
        body = {"model": model, "input": chosen, "encoding_format": "base64", "truncate": True}
        yield Request(orjson.dumps(body), each)


async def closed_load(
    target: Target, requests: Iterable[Request], *, connections: int, duration_s: float
) -> LoadResult:
    """Keep so many connections busy until the time is over or the requests are."""
    result, source = LoadResult(), iter(requests)
    started = time.perf_counter()
    until = started + duration_s

    async def keep_busy() -> None:
        connection = Connection(target)
        try:
            while time.perf_counter() < until and (request := next(source, None)) is not None:
                await _send(connection, request, result, due=time.perf_counter())
        finally:
            await connection.close()

    await asyncio.gather(*(keep_busy() for _ in range(connections)))
    result.duration_s = time.perf_counter() - started
    return result


async def open_load(
    target: Target,
    requests: Iterable[Request],
    *,
    rate_per_s: float,
    duration_s: float,
    seed: int = 0,
) -> LoadResult:
    """Send requests at random times (Poisson) of a fixed mean rate, whether or not earlier ones are answered."""
    result, source, free = LoadResult(), iter(requests), asyncio.Queue[Connection]()
    for _ in range(MOST_CONNECTIONS):
        free.put_nowait(Connection(target))
    flying: set[asyncio.Task[None]] = set()

    async def answer(request: Request, due: float) -> None:
        connection = await free.get()
        try:
            await _send(connection, request, result, due=due)
        finally:
            free.put_nowait(connection)

    started = time.perf_counter()
    for due_s in arrivals(rate_per_s, duration_s, seed):
        await asyncio.sleep(max(0.0, started + due_s - time.perf_counter()))
        request = next(source, None)
        if request is None:
            break
        task = asyncio.create_task(answer(request, started + due_s))
        flying.add(task)
        task.add_done_callback(flying.discard)
    await asyncio.gather(*flying)
    result.duration_s = time.perf_counter() - started
    while not free.empty():
        await free.get_nowait().close()
    return result


def arrivals(rate_per_s: float, duration_s: float, seed: int) -> Iterator[float]:
    """Seconds from the start at which requests are due."""
    chooser = random.Random(seed)  # noqa: S311 - variety, no secret
    due_s = chooser.expovariate(rate_per_s)
    while due_s < duration_s:
        yield due_s
        due_s += chooser.expovariate(rate_per_s)


async def _send(
    connection: Connection, request: Request, result: LoadResult, *, due: float
) -> None:
    try:
        answer = await connection.post(request.body)
    except (OSError, ValueError):
        result.statuses[0] += 1
        await connection.close()
        await asyncio.sleep(0.01)  # a server that is gone must not make this spin
        return
    result.statuses[answer.status] += 1
    if answer.retry_after.isdigit():
        result.retry_after_s[int(answer.retry_after)] += 1
    if answer.status != OK:
        return
    result.latencies_s.append(time.perf_counter() - due)
    result.texts += request.texts
    # usage stands at an end of the body: no parser need walk through the vectors
    found = USAGE.search(answer.body, max(0, len(answer.body) - 300)) or USAGE.search(answer.body)
    result.tokens += int(found.group(1)) if found else 0
