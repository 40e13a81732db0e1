"""How fast a machine was, second by second, while a server on it was under load: pure.

Virtual machines have neighbours that take caches, memory and parts of a core from them for seconds, which no counter
tells. But the same tokens take a server's workers longer then. So the seconds of batches, by what batches cost, say how
many times as long everything took, in each second of a run. They hold no queues: how long requests waited is neither
read nor fitted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from nestvec.tools.planning.coefficients import BatchTimes
from nestvec.tools.planning.replica import SimulatedBatch
from numpy.typing import NDArray

ROUNDS: Final = (
    6  # how many batches run at once, and so how fast, depends on how slow the machine is
)
FURTHER_S: Final = 3600.0  # behind the last second the machine stays as fast as it was


@dataclass(frozen=True, slots=True)
class Slowness:
    """How many times as long everything took on a machine.

    Attributes:
        ends_s: When each part of the time ended, in seconds from the start, (n,).
        times: How many times as long everything took in it, (n,).
    """

    ends_s: NDArray[np.float64]
    times: NDArray[np.float64]

    @classmethod
    def none(cls, ends_s: NDArray[np.float64]) -> Self:
        """Return that of a machine that keeps its speed."""
        return cls(ends_s, np.ones(len(ends_s)))

    def work_s(self, at_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far a machine that keeps its speed comes in the time that this one has until some moments."""
        return np.interp(at_s, *self._corners())

    def time_s(self, work_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return when this machine comes as far as one that keeps its speed does in some times."""
        at_s, work = self._corners()
        return np.interp(work_s, work, at_s)

    def _corners(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        at_s = np.concatenate(([0.0], self.ends_s, [self.ends_s[-1] + FURTHER_S]))
        times = np.append(self.times, self.times[-1])
        return at_s, np.concatenate(([0.0], np.cumsum(np.diff(at_s) / times)))


def fit_slowness(
    samples: Sequence[Sequence[float]],
    cost: BatchTimes,
    simulated: Callable[[Slowness], list[SimulatedBatch]],
) -> Slowness:
    """Return the slowness of which simulated batches take as long by their cost as measured ones, part by part.

    Args:
        samples: What a server's workers had run by some moments: seconds from the start, batches, their tokens, and the
            seconds that they took.
        cost: What batches cost.
        simulated: Returns the batches of simulations of a machine of some slowness, by its own time.
    """
    at_s, count, tokens, run_s = np.diff(np.array(samples), axis=0).T
    ends_s = np.cumsum(at_s) + samples[0][0]
    measured = run_s / np.maximum(cost.fixed_s * count + cost.token_s * tokens, 1e-9)
    slowness = Slowness.none(ends_s)
    for _round in range(ROUNDS):
        batches = np.array(simulated(slowness))
        part = np.minimum(np.searchsorted(ends_s, batches[:, 0]), len(ends_s) - 1)
        took_s = np.bincount(part, batches[:, 1], len(ends_s))
        costs_s = np.bincount(part, cost.fixed_s + cost.token_s * batches[:, 2], len(ends_s))
        # A second without a batch says nothing.
        is_known = (count > 0) & (costs_s > 0)
        found = measured[is_known] * costs_s[is_known] / took_s[is_known]
        times = slowness.times.copy()
        times[is_known] *= found
        slowness = Slowness(ends_s, times)
    return slowness
