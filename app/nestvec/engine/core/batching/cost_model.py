"""How long a batch takes on this machine, learned while serving: pure, no clock of its own.

The model is t = a + b·T + c·A, with T tokens and A the attention area B·S² that a batch really computes. It is fitted
by exponentially weighted least squares with coefficients that are never negative, so that a prediction grows with the
batch whatever the noise.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from nestvec.engine.types import Float64Array

FORGETTING: Final = 0.98  # a batch fifty batches ago counts a third
MIN_SAMPLES: Final = 8  # three coefficients need a few more batches than three
# Batches; solving after each one took half a per cent of the engine's CPU time.
SOLVE_EVERY: Final = 8
# Keeps the normal equations solvable while all batches look alike; small against real sums.
RIDGE: Final = 1e-6
TOKEN_SCALE: Final = 512.0  # brings the features near one, for numerical stability
AREA_SCALE: Final = 512.0 * 128.0
TYPICAL_LENGTH: Final = 128.0


@dataclass(slots=True)
class OnlineCostModel:
    """Predicts how long batches take, from those that ran.

    Attributes:
        samples: Number of batches seen.
    """

    samples: int = 0
    _moments: Float64Array = field(default_factory=lambda: np.zeros((3, 3)))
    _targets: Float64Array = field(default_factory=lambda: np.zeros(3))
    _coefficients: Float64Array = field(default_factory=lambda: np.zeros(3))
    _per_token: dict[float, float | None] = field(default_factory=dict)

    def observe(self, *, tokens: float, area: float, took_s: float) -> float | None:
        """Learn from a batch.

        Args:
            tokens: T, times the share of the layers that ran.
            area: B·S², times the share of the layers that ran.
            took_s: Seconds that the batch took.

        Returns:
            Relative error of the prediction made before, |predicted - took| / took; None while still learning.
        """
        predicted = self.predict(tokens=tokens, area=area)
        features = _features(tokens, area)
        self._moments = FORGETTING * self._moments + np.outer(features, features)
        self._targets = FORGETTING * self._targets + features * took_s
        self.samples += 1
        if self.samples <= MIN_SAMPLES or self.samples % SOLVE_EVERY == 0:
            self._coefficients = _solve_nonnegative(self._moments, self._targets)
            self._per_token.clear()
        if predicted is None or took_s <= 0:
            return None
        return abs(predicted - took_s) / took_s

    def predict(self, *, tokens: float, area: float) -> float | None:
        """Return the seconds that a batch would take; None while still learning."""
        if self.samples < MIN_SAMPLES:
            return None
        return float(self._coefficients @ _features(tokens, area))

    def seconds_per_token(self, batch_tokens: float) -> float | None:
        """Return the seconds per token in batches of so many tokens, of typical length; None while still learning."""
        if batch_tokens not in self._per_token:  # read for every call, learned every few batches
            length = min(TYPICAL_LENGTH, batch_tokens)
            took_s = self.predict(tokens=batch_tokens, area=batch_tokens * length)
            self._per_token[batch_tokens] = None if not took_s else took_s / batch_tokens
        return self._per_token[batch_tokens]


def _features(tokens: float, area: float) -> Float64Array:
    return np.array([1.0, tokens / TOKEN_SCALE, area / AREA_SCALE])


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
