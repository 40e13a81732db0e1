"""A server that is always busy and one that is idle in between, by turns, and how long its workers run either way."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from nestvec.tools.bench.client import Target
from nestvec.tools.bench.load_generator import arrivals, closed_load, open_load
from nestvec.tools.planning.measuring.own_server import OwnServer
from nestvec.tools.planning.measuring.request_costs import CONNECTIONS, MeasuredLoad, run_load
from nestvec.tools.planning.open_load import OpenLoad
from nestvec.tools.planning.saturation import BusyLoad, steady_requests_per_s

# Of what the server can do: others than those that plans are checked at.
SHARES: Final = (0.65, 0.35, 0.65, 0.35, 0.65, 0.35)
OPEN_S: Final = 9.0
BUSY_S: Final = 4.0
REQUESTS: Final = 64  # at least, however slow a model is
FIRST_SEED: Final = 10


@dataclass(slots=True)
class LoadTurns:
    """What was measured by turns: seconds of a virtual machine are slower than others, and so both are hit alike.

    Attributes:
        open_loads: Requests at random times.
        busy_loads: What was measured each time that `CONNECTIONS` were always busy.
    """

    open_loads: list[OpenLoad] = field(default_factory=list)
    busy_loads: list[BusyLoad] = field(default_factory=list)


def measure_turns(
    server: OwnServer,
    count_tokens: Callable[[Sequence[str]], list[int]],
    words: tuple[int, int],
    texts_per_request: int,
    requests_per_s: float,
    workers: int,
) -> LoadTurns:
    """Send a server as much as it can do, and shares of that at random times (Poisson), by turns.

    Args:
        server: The server.
        count_tokens: Tokens of texts, as the server cuts them.
        words: Fewest and most words of a text.
        texts_per_request: Texts of each request.
        requests_per_s: About how many it can do a second.
        workers: Workers of the server that run batches.

    Raises:
        ModelError: A request was not answered.
    """
    target, turns = Target.parse(server.url + "/v1/embeddings"), LoadTurns()
    busy_s = max(BUSY_S, REQUESTS / requests_per_s)
    for number, share in enumerate(SHARES):
        seed, rate_per_s = FIRST_SEED + number, share * requests_per_s
        full = MeasuredLoad(words, texts_per_request, 100 + seed)
        turns.busy_loads.append(_busy(server, target, full, count_tokens, busy_s, workers))
        load = MeasuredLoad(words, texts_per_request, seed)
        duration_s = max(OPEN_S, REQUESTS / rate_per_s)
        turns.open_loads.append(_open(server, target, load, count_tokens, rate_per_s, duration_s))
    return turns


def _busy(
    server: OwnServer,
    target: Target,
    load: MeasuredLoad,
    count_tokens: Callable[[Sequence[str]], list[int]],
    duration_s: float,
    workers: int,
) -> BusyLoad:
    """Keep connections busy for some seconds."""
    sending = closed_load(target, load.requests(), connections=CONNECTIONS, duration_s=duration_s)
    batch_s = server.batch_s()
    result = run_load(sending)
    batch_s = server.batch_s() - batch_s
    answered = len(result.latencies_s)
    return BusyLoad(
        [tuple(count_tokens(texts)) for texts in load.sent[:answered]],
        CONNECTIONS,
        steady_requests_per_s(result.answered_s, CONNECTIONS),
        (workers * result.duration_s - batch_s) / answered,
    )


def _open(
    server: OwnServer,
    target: Target,
    load: MeasuredLoad,
    count_tokens: Callable[[Sequence[str]], list[int]],
    rate_per_s: float,
    duration_s: float,
) -> OpenLoad:
    """Send requests at random times for some seconds."""
    sending = open_load(
        target, load.requests(), rate_per_s=rate_per_s, duration_s=duration_s, seed=load.seed
    )
    client_s, batch_s = time.process_time(), server.batch_s()
    answered = len(run_load(sending).latencies_s)
    client_s = (time.process_time() - client_s) / answered
    times_s = list(arrivals(rate_per_s, duration_s, load.seed))
    lengths = [tuple(count_tokens(texts)) for texts in load.sent[: len(times_s)]]
    return OpenLoad(times_s, lengths, client_s, server.batch_s() - batch_s)
