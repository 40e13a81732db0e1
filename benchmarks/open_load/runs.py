"""Runs of a server under load that the plan's simulation is compared with."""

from dataclasses import dataclass
from typing import Final

from nestvec.tools.planning.measuring.request_costs import MeasuredLoad

SHARES: Final = (0.5, 0.8, 0.95)
# Before and after each run: as many connections as can be always busy, and shares that no run has.
AROUND: Final = (0.0, 0.65, 0.35)
WORDS: Final = (60, 120)
TEXTS: Final = 1


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run of a server under load; its fields are the keys of a line.

    Attributes:
        seed: Of times, lengths and words.
        share: Share of the capacity; 0: as many connections as can be were always busy.
        requests_per_s: Requests a second that were sent, at share 0 answered.
        duration_s: For how long they were sent; at share 0 until the last was answered.
        figures: Requests answered a second, and the median and 99th percentile in seconds; empty at share 0.
        answered: Number of requests.
        client_s: CPU seconds of the load generator a request.
        server_s: CPU seconds of the server a request.
        batch_s: Seconds that the server's workers ran batches a request.
        others_cores: Cores that other processes kept busy meanwhile.
        samples: What the workers had run by a moment of the run, about each second: seconds from its start, batches,
            their tokens, and the seconds that they took. Empty around the runs.
        lone_threads: Threads for a text that is alone on an idle server; 0: as many as the server chooses.
    """

    seed: int
    share: float
    requests_per_s: float
    duration_s: float
    figures: tuple[float, ...]
    answered: int
    client_s: float
    server_s: float
    batch_s: float
    others_cores: float
    samples: tuple[tuple[float, ...], ...] = ()
    lone_threads: int = 0


def load_of(seed: int, share: float) -> MeasuredLoad:
    """Return the texts of a run."""
    return MeasuredLoad(WORDS, TEXTS, 1000 * seed + round(100 * share))
