"""Figures with intervals, paired differences and permutation tests, whatever the number of texts. Pure numpy.

Up to `MOST_RESAMPLED` values are resampled (Efron's percentile bootstrap, 1979); beyond, the mean is normal by the
central limit theorem, and resampling 10⁵ texts a thousand times would take 800 MB. Permutation tests count the observed
arrangement among the draws, (1 + k) / (1 + m), so that p is never 0 (Phipson and Smyth, 2010).
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.reports.frame import Figure
from nestvec.corpus.reports.statistics.bootstrap import Resamples
from nestvec.corpus.reports.statistics.scores import ranks
from nestvec.engine.types import Float64Array

MOST_RESAMPLED: Final = 1000
NORMAL_QUANTILE: Final = 1.959964
SIGN_FLIPS: Final = 1999
SEED: Final = 17


def mean_figure(
    name: str, values: Sequence[float] | NDArray[Any], *, unit: str = "", better: str = ""
) -> Figure:
    """Return the mean of values `[N]` with its 95% interval."""
    plain = np.asarray(values, np.float64)
    low, high = mean_interval(plain)
    return Figure(
        name, float(plain.mean()), len(plain), low, high, unit=unit, better=better, values=plain
    )


@lru_cache(maxsize=8)
def _resamples(n: int) -> Resamples:
    """Return the draws for n values, which most figures of a report share."""
    return Resamples(n)


def count_figure(name: str, count: int, n: int, *, unit: str = "", better: str = "") -> Figure:
    """Return a count of n things, which has no interval."""
    return Figure(name, float(count), n, unit=unit, better=better)


def mean_interval(values: Float64Array) -> tuple[float, float]:
    """Return the 95% interval of the mean of values `[N]`."""
    mean = float(values.mean())
    if len(values) <= MOST_RESAMPLED:
        resamples = _resamples(len(values))
        estimate = resamples.estimate(mean, resamples.mean(values))
        return estimate.low, estimate.high
    half = NORMAL_QUANTILE * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half


def pair_order_figure(
    name: str, first: Float64Array, second: Float64Array, count: int, *, draws: int, seed: int
) -> Figure:
    """Return Spearman's correlation of values of all pairs of N things, with an interval that is that of other things.

    Pairs that share a thing depend on one another, so things are drawn, not pairs.

    Args:
        name: The figure's name.
        first: A value of each pair, in the order of `np.triu_indices(count, 1)`.
        second: Another value of each pair.
        count: Number of things.
        draws: How many resamples.
        seed: Of the draws.
    """
    left, right = np.triu_indices(count, 1)
    a, b = ranks(first), ranks(second)
    random = np.random.default_rng(seed)
    drawn = np.empty(draws)
    for number in range(draws):
        weights = random.multinomial(count, np.full(count, 1 / count)).astype(np.float64)
        of_pair = weights[left] * weights[right]
        of_pair /= of_pair.sum()
        x, y = a - of_pair @ a, b - of_pair @ b
        spread = float((of_pair @ x**2) * (of_pair @ y**2))
        drawn[number] = (of_pair @ (x * y)) / math.sqrt(max(spread, 1e-12))
    value = float(np.corrcoef(a, b)[0, 1])
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return Figure(
        name,
        value,
        count,
        min(low, value),
        max(high, value),
        unit="correlation",
        better="higher",
    )


def paired_difference(
    first: Float64Array, second: Float64Array
) -> tuple[float, float, float, float]:
    """Return the mean of second - first over the same texts `[N]`: the difference, its 95% interval, and p.

    p is that of a two-sided sign-flip test; with more than `MOST_RESAMPLED` texts that of the normal distribution.
    """
    differences = np.asarray(second - first, np.float64)
    low, high = mean_interval(differences)
    mean = float(differences.mean())
    n = len(differences)
    if n > MOST_RESAMPLED:
        deviation = float(differences.std(ddof=1)) / math.sqrt(n)
        z = abs(mean) / deviation if deviation > 0 else (0.0 if mean == 0 else math.inf)
        return mean, low, high, math.erfc(z / math.sqrt(2))
    random = np.random.default_rng(SEED)
    signs = random.integers(0, 2, (SIGN_FLIPS, n)).astype(np.float64) * 2 - 1
    flipped = np.abs(signs @ differences) / n
    extreme = int((flipped >= abs(mean) - 1e-12).sum())
    return mean, low, high, (1 + extreme) / (1 + SIGN_FLIPS)


def holm(probabilities: Sequence[float]) -> list[float]:
    """Return probabilities of several tests, adjusted so that one false finding among all is as rare as one p says.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = sorted(range(len(probabilities)), key=probabilities.__getitem__)
    adjusted = [1.0] * len(probabilities)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * probabilities[index]))
        adjusted[index] = highest
    return adjusted


def permutation_p(
    observed: float, draw: Callable[[np.random.Generator], float], count: int, seed: int
) -> float:
    """Return how probable a figure of at least the observed one is among random arrangements.

    Args:
        observed: The figure of the arrangement that was found.
        draw: Returns the figure of a random arrangement.
        count: How many are drawn.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    extreme = sum(draw(random) >= observed - 1e-12 for _ in range(count))
    return (1 + extreme) / (1 + count)
