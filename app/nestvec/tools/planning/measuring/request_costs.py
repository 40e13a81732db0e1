"""What requests cost a server beside their batches, and how much it answers while all its workers are busy."""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import orjson

from nestvec.errors import ModelError
from nestvec.tools.bench.client import Target
from nestvec.tools.bench.load_generator import LoadRequest, LoadResult, closed_load
from nestvec.tools.bench.texts import WORDS
from nestvec.tools.planning.measuring.own_server import OwnServer

CONNECTIONS: Final = 16
SHAPE_S: Final = 3.0
WARM_UP_S: Final = 2.0
SATURATION_S: Final = 12.0
SATURATION_REQUESTS: Final = 4 * CONNECTIONS
# Number and words of the texts of requests that tell the costs of a request, a text and a token apart.
SHAPES: Final = ((1, 6), (16, 6), (1, 150))


@dataclass(slots=True)
class MeasuredLoad:
    """Requests of random words, each text unique, that remembers what was sent.

    Attributes:
        words: Fewest and most words of a text.
        texts_per_request: Texts of each request.
        seed: Of the words and lengths.
        sent: The texts of each request that was sent, in order.
    """

    words: tuple[int, int]
    texts_per_request: int
    seed: int
    sent: list[list[str]] = field(default_factory=list)

    def requests(self) -> Iterator[LoadRequest]:
        """Yield requests without end."""
        chooser = random.Random(self.seed)  # noqa: S311 - variety, no secret
        for number in itertools.count():
            texts = [
                " ".join([f"{number}", *chooser.choices(WORDS, k=chooser.randint(*self.words))])
                for _ in range(self.texts_per_request)
            ]
            self.sent.append(texts)
            body = {"model": "", "input": texts, "encoding_format": "base64", "truncate": True}
            yield LoadRequest(orjson.dumps(body), len(texts))


@dataclass(frozen=True, slots=True)
class RequestCosts:
    """What requests cost.

    Attributes:
        request_s: CPU seconds of the event loop a request.
        text_s: The same a text.
        token_s: The same a token.
        busy_front_s: CPU seconds of the event loop a request while `CONNECTIONS` are always busy.
        requests_per_s: Requests a second that are answered then.
        lengths: Tokens of the texts of these requests.
        client_s: CPU seconds of this process a request.
        alone_s: Seconds from one request to the next, of one text, where one follows the other on an idle server.
        alone_lengths: Tokens of the texts of these requests.
    """

    request_s: float
    text_s: float
    token_s: float
    busy_front_s: float
    requests_per_s: float
    lengths: list[tuple[int, ...]]
    client_s: float
    alone_s: float
    alone_lengths: list[tuple[int, ...]]


def measure_requests(
    server: OwnServer,
    count_tokens: Callable[[Sequence[str]], list[int]],
    words: tuple[int, int],
    texts_per_request: int,
) -> RequestCosts:
    """Load a server: one request after the other of several shapes, then as much as it can do.

    Args:
        server: The server.
        count_tokens: Tokens of texts, as the server cuts them.
        words: Fewest and most words of a text of the load that is as much as it can do.
        texts_per_request: Texts of each request of it.

    Raises:
        ModelError: A request was not answered.
    """
    target = Target.parse(server.url + "/v1/embeddings")
    warm_up = MeasuredLoad(words, texts_per_request, 1).requests()
    warmed = _run(target, warm_up, CONNECTIONS, WARM_UP_S)
    requests_per_s = len(warmed.latencies_s) / warmed.duration_s
    rows, costs = [], []
    for number, (texts, length) in enumerate(SHAPES):
        before_s = server.event_loop_cpu_s()
        load = MeasuredLoad((length, length), texts, 2 + number)
        result = _run(target, load.requests(), 1, SHAPE_S)
        answered = len(result.latencies_s)
        rows.append([1.0, result.texts / answered, result.tokens / answered])
        costs.append((server.event_loop_cpu_s() - before_s) / answered)
    # Of a model that takes few tokens all texts have as many: what they cost is shared between text and token then.
    solved = np.linalg.lstsq(np.array(rows), np.array(costs), rcond=None)[0]
    _, text_s, token_s = np.maximum(solved, 0.0)
    alone, loop_before_s = MeasuredLoad(words, 1, 8), server.event_loop_cpu_s()
    one_by_one = _run(target, alone.requests(), 1, max(SHAPE_S, CONNECTIONS / requests_per_s))
    # Each request costs more the longer batches ran since the last, as they take the caches: it is told from texts
    # like those of the load, and only what more texts and tokens take from the shapes.
    each_s = (server.event_loop_cpu_s() - loop_before_s) / len(one_by_one.latencies_s)
    tokens = one_by_one.tokens / len(one_by_one.latencies_s)
    request_s = max(0.0, each_s - text_s - token_s * tokens)
    load = MeasuredLoad(words, texts_per_request, 9)
    before_s, busy_before_s = time.process_time(), server.event_loop_cpu_s()
    # Large models answer few requests in that time: as many are waited for as tell what a server can do.
    duration_s = max(SATURATION_S, SATURATION_REQUESTS / requests_per_s)
    result = _run(target, load.requests(), CONNECTIONS, duration_s)
    answered = len(result.latencies_s)
    return RequestCosts(
        float(request_s),
        float(text_s),
        float(token_s),
        (server.event_loop_cpu_s() - busy_before_s) / answered,
        answered / result.duration_s,
        [tuple(count_tokens(texts)) for texts in load.sent[:answered]],
        (time.process_time() - before_s) / answered,
        one_by_one.duration_s / len(one_by_one.latencies_s),
        [tuple(count_tokens(texts)) for texts in alone.sent[: len(one_by_one.latencies_s)]],
    )


def _run(
    target: Target, requests: Iterable[LoadRequest], connections: int, duration_s: float
) -> LoadResult:
    """Put a closed load on a server.

    Raises:
        ModelError: A request was not answered.
    """
    return run_load(closed_load(target, requests, connections=connections, duration_s=duration_s))


def run_load(load: Coroutine[None, None, LoadResult]) -> LoadResult:
    """Put a load on a server, on an event loop of its own.

    Raises:
        ModelError: A request was not answered.
    """
    result = asyncio.run(load)
    if result.errors or not result.latencies_s:
        raise ModelError(f"the server to measure did not answer: {dict(result.statuses)}")
    return result
