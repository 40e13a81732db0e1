"""How long a batch takes on this machine, learned while serving: pure, no clock of its own.

The model is t = a + b·T + c·A, with T tokens and A the area of attention that a batch really computes: what the backend
prices it at beyond its tokens. It is fitted by exponentially weighted least squares of the error relative to the
batch's price, so that one long text does not outweigh a thousand short ones, with coefficients that are never negative,
so that a prediction grows with the batch whatever the noise.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from nestvec.engine.types import Float64Array

FORGETTING: Final = 0.98  # a batch fifty batches ago counts a third
MIN_SAMPLES: Final = 8  # three coefficients need a few more batches than three
# Batches; solving after each one took half a per cent of the engine's CPU time.
SOLVE_EVERY: Final = 8
# Keeps the normal equations solvable while all batches look alike; small against real sums.
RIDGE: Final = 1e-6
TOKEN_SCALE: Final = 512.0  # brings the features near one, for numerical stability
AREA_SCALE: Final = 32.0
# What a batch costs however small it is, about, in token equivalents: so that the smallest do not count for the most.
FIXED_COST: Final = 32.0
TYPICAL_TOKENS: Final = 128  # of a text, where nothing is known of those that wait


class BatchSeconds(NamedTuple):
    """What one batch costs: t = a + b·T + c·A, with T tokens and an attention area of A token equivalents.

    Attributes:
        fixed_s: a, seconds that a batch takes however small it is.
        token_s: b, seconds a token.
        area_s: c, seconds a token equivalent of attention beyond the tokens.
    """

    fixed_s: float
    token_s: float
    area_s: float

    def of(self, tokens: float, area: float) -> float:
        """Return the seconds of a batch of T tokens and an attention area of A token equivalents."""
        return self.fixed_s + self.token_s * tokens + self.area_s * area


@dataclass(slots=True)
class OnlineCostModel:
    """Predicts how long batches take, from those that ran.

    Attributes:
        typical_area: Area of a token in texts of typical length, in token equivalents.
        samples: Number of batches seen.
        forgetting: What a batch still counts after one more; 1 where all shall count alike.
    """

    typical_area: float = 0.0
    samples: int = 0
    forgetting: float = FORGETTING
    _moments: Float64Array = field(default_factory=lambda: np.zeros((3, 3)))
    _targets: Float64Array = field(default_factory=lambda: np.zeros(3))
    _coefficients: Float64Array = field(default_factory=lambda: np.zeros(3))
    _per_cost: dict[float, float | None] = field(default_factory=dict)

    def observe(self, *, tokens: float, area: float, took_s: float) -> float | None:
        """Learn from a batch.

        Args:
            tokens: T, times the share of the layers that ran.
            area: A, in token equivalents, times the share of the layers that ran.
            took_s: Seconds that the batch took.

        Returns:
            Relative error of the prediction made before, |predicted - took| / took; None while still learning.
        """
        predicted = self.predict(tokens=tokens, area=area)
        scale = TOKEN_SCALE / (FIXED_COST + tokens + area)
        features = _features(tokens, area, scale)
        self._moments = self.forgetting * self._moments + np.outer(features, features)
        self._targets = self.forgetting * self._targets + features * (took_s * scale)
        self.samples += 1
        if self.samples <= MIN_SAMPLES or self.samples % SOLVE_EVERY == 0:
            self._coefficients = _solve_nonnegative(self._moments, self._targets)
            self._per_cost.clear()
        if predicted is None or took_s <= 0:
            return None
        return abs(predicted - took_s) / took_s

    def predict(self, *, tokens: float, area: float) -> float | None:
        """Return the seconds that a batch would take; None while still learning."""
        if self.samples < MIN_SAMPLES:
            return None
        return float(self._coefficients @ _features(tokens, area))

    @property
    def batch_seconds(self) -> BatchSeconds | None:
        """What one batch costs, as fitted so far; None while still learning."""
        if self.samples < MIN_SAMPLES:
            return None
        fixed, tokens, area = map(float, self._coefficients)
        return BatchSeconds(fixed, tokens / TOKEN_SCALE, area / AREA_SCALE)

    def seconds_per_cost(self, batch_cost: float) -> float | None:
        """Return the seconds that a token equivalent takes in batches of this cost; None while still learning."""
        if batch_cost not in self._per_cost:  # read for every call, learned every few batches
            tokens = batch_cost / (1 + self.typical_area)
            took_s = self.predict(tokens=tokens, area=batch_cost - tokens)
            self._per_cost[batch_cost] = None if not took_s else took_s / batch_cost
        return self._per_cost[batch_cost]


def _features(tokens: float, area: float, scale: float = 1.0) -> Float64Array:
    return np.array([scale, tokens * (scale / TOKEN_SCALE), area * (scale / AREA_SCALE)])


def _solve_nonnegative(moments: Float64Array, targets: Float64Array) -> Float64Array:
    """Solve least squares from normal equations, leaving out coefficients that would be negative."""
    active = [0, 1, 2]
    coefficients = np.zeros(3)
    while active:
        part = moments[np.ix_(active, active)] + RIDGE * np.eye(len(active))
        solved = np.linalg.solve(part, targets[active])
        worst = int(np.argmin(solved))
        if solved[worst] >= 0:
            coefficients[active] = solved
            return coefficients
        del active[worst]
    return coefficients
