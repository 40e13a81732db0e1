"""Intervals for scores: how far each could have come out by the choice of texts alone. Pure numpy.

Source: the percentile bootstrap (Efron, 1979). Resamples are drawn once, as weights of the texts, and used for every
variant, so that two variants are compared on the same draws (paired). For rank correlation the ranks are those of all
texts, which spares ranking each resample anew and changes an interval's third digit.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[np.float64]

RESAMPLES: Final = 1000
SEED: Final = 11
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its interval.

    Attributes:
        n: Texts or queries that it is the mean over.
    """

    score: float
    low: float
    high: float
    n: int


class Resamples:
    """Draws of n texts with replacement, the same for every score.

    Args:
        n: Texts or queries.
    """

    def __init__(self, n: int) -> None:
        random = np.random.default_rng(SEED)
        self.n = n
        self._weights: Wide = random.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n

    def mean(self, values: Wide) -> Wide:
        """The mean of each draw, (draws,)."""
        return self._weights @ values

    def correlation(self, ranks: Wide, gold: Wide) -> Wide:
        """Pearson's correlation of ranks in each draw, (draws,)."""
        w = self._weights
        mean_a, mean_b = w @ ranks, w @ gold
        covariance = w @ (ranks * gold) - mean_a * mean_b
        spread = (w @ ranks**2 - mean_a**2) * (w @ gold**2 - mean_b**2)
        found: Wide = covariance / np.sqrt(np.maximum(spread, 1e-12))
        return found

    def estimate(self, score: float, draws: Wide) -> Estimate:
        """A score with the middle 95% of its draws."""
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
        # Rounding, and bias of the ranks, must not leave a score outside its own interval.
        return Estimate(score, min(low, score), max(high, score), self.n)
