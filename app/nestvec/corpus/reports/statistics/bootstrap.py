"""Intervals for scores: how far each could have come out by the choice of texts alone. Pure numpy.

Source: the percentile bootstrap (Efron, 1979). Resamples are drawn once, as weights of the texts, and used for every
variant, so that two variants are compared on the same draws (paired). For rank correlation the ranks are those of all
texts, which spares ranking each resample anew and changes an interval's third digit.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from nestvec.engine.types import Float64Array

RESAMPLES: Final = 1000
SEED: Final = 11
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its interval; field names are keys of report.json.

    Attributes:
        score: The score of all texts.
        low: Lower bound of the 95% interval.
        high: Upper bound of the 95% interval.
        n: Number of texts or queries that the score is the mean over.
    """

    score: float
    low: float
    high: float
    n: int


class Resamples:
    """Draws of N texts with replacement, the same for every score.

    Args:
        n: Number of texts or queries.
    """

    def __init__(self, n: int) -> None:
        random = np.random.default_rng(SEED)
        self.n = n
        self._weights: Float64Array = random.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n

    def mean(self, values: Float64Array) -> Float64Array:
        """Return the mean of values `[N]` in each draw, `[RESAMPLES]`."""
        return self._weights @ values

    def correlation(self, ranks: Float64Array, gold: Float64Array) -> Float64Array:
        """Return Pearson's correlation of ranks `[N]` with gold ranks `[N]` in each draw, `[RESAMPLES]`."""
        w = self._weights
        mean_a, mean_b = w @ ranks, w @ gold
        covariance = w @ (ranks * gold) - mean_a * mean_b
        spread = (w @ ranks**2 - mean_a**2) * (w @ gold**2 - mean_b**2)
        correlations: Float64Array = covariance / np.sqrt(np.maximum(spread, 1e-12))
        return correlations

    def estimate(self, score: float, draws: Float64Array) -> Estimate:
        """Return a score with the middle 95% of its draws."""
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
        # Rounding, and bias of the ranks, must not leave a score outside its own interval.
        return Estimate(score, min(low, score), max(high, score), self.n)
