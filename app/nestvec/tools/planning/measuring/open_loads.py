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
        busy_requests: Requests that were answered while `CONNECTIONS` were always busy.
        busy_s: For how many seconds they were.
    """

    open_loads: list[OpenLoad] = field(default_factory=list)
    busy_requests: int = 0
    busy_s: float = 0.0

    @property
    def requests_per_s(self) -> float:
        """Requests a second that are answered while `CONNECTIONS` are always busy."""
        return self.busy_requests / self.busy_s


def measure_turns(
    server: OwnServer,
    count_tokens: Callable[[Sequence[str]], list[int]],
    words: tuple[int, int],
    texts_per_request: int,
    requests_per_s: float,
) -> LoadTurns:
    """Send a server as much as it can do, and shares of that at random times (Poisson), by turns.

    Args:
        server: The server.
        count_tokens: Tokens of texts, as the server cuts them.
        words: Fewest and most words of a text.
        texts_per_request: Texts of each request.
        requests_per_s: About how many it can do a second.

    Raises:
        ModelError: A request was not answered.
    """
    target, turns = Target.parse(server.url + "/v1/embeddings"), LoadTurns()
    busy_s = max(BUSY_S, REQUESTS / requests_per_s)
    for number, share in enumerate(SHARES):
        seed, rate_per_s = FIRST_SEED + number, share * requests_per_s
        full = MeasuredLoad(words, texts_per_request, 100 + seed).requests()
        busy = run_load(closed_load(target, full, connections=CONNECTIONS, duration_s=busy_s))
        turns.busy_requests += len(busy.latencies_s)
        turns.busy_s += busy.duration_s
        duration_s = max(OPEN_S, REQUESTS / rate_per_s)
        load = MeasuredLoad(words, texts_per_request, seed)
        sending = open_load(
            target, load.requests(), rate_per_s=rate_per_s, duration_s=duration_s, seed=seed
        )
        client_s, batch_s = time.process_time(), server.batch_s()
        answered = len(run_load(sending).latencies_s)
        client_s = (time.process_time() - client_s) / answered
        times_s = list(arrivals(rate_per_s, duration_s, seed))
        lengths = [tuple(count_tokens(texts)) for texts in load.sent[: len(times_s)]]
        turns.open_loads.append(OpenLoad(times_s, lengths, client_s, server.batch_s() - batch_s))
    return turns
