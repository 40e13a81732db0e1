"""How long a batch takes on this machine, learned while serving: pure, no clock of its own.

t = a + b·T + c·A, with T tokens and A the attention area B·S² that a batch really computes. Fitted by
exponentially weighted least squares with coefficients that are never negative, so that a prediction grows with
the batch whatever the noise.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FORGETTING: Final = 0.98  # a batch fifty back counts a third
LEAST_SAMPLES: Final = 8  # three coefficients need some more than three batches
SOLVE_EVERY: Final = 8  # batches; solving each time took half a per cent of the engine's CPU time
# Keeps the normal equations solvable while all batches look alike; small against real sums.
RIDGE: Final = 1e-6
TOKEN_SCALE: Final = 512.0  # features of about one, for the numbers' sake
AREA_SCALE: Final = 512.0 * 128.0
TYPICAL_LENGTH: Final = 128.0


@dataclass(slots=True)
class OnlineCostModel:
    """Learns from batches that ran.

    Attributes:
        samples: Batches seen.
    """

    samples: int = 0
    _moments: Floats = field(default_factory=lambda: np.zeros((3, 3)))
    _targets: Floats = field(default_factory=lambda: np.zeros(3))
    _coefficients: Floats = field(default_factory=lambda: np.zeros(3))
    _per_token: dict[float, float | None] = field(default_factory=dict)

    def observe(self, *, tokens: float, area: float, took_s: float) -> float | None:
        """Learn from a batch.

        Args:
            tokens: T, as far as they went: times the share of the layers that ran.
            area: B·S², likewise.
            took_s: Seconds it took.

        Returns:
            How far the prediction before it was off, |predicted - took| / took; None while still learning.
        """
        predicted = self.predict(tokens=tokens, area=area)
        features = _features(tokens, area)
        self._moments = FORGETTING * self._moments + np.outer(features, features)
        self._targets = FORGETTING * self._targets + features * took_s
        self.samples += 1
        if self.samples <= LEAST_SAMPLES or self.samples % SOLVE_EVERY == 0:
            self._coefficients = _solve_nonnegative(self._moments, self._targets)
            self._per_token.clear()
        if predicted is None or took_s <= 0:
            return None
        return abs(predicted - took_s) / took_s

    def predict(self, *, tokens: float, area: float) -> float | None:
        """Seconds a batch would take; None while still learning."""
        if self.samples < LEAST_SAMPLES:
            return None
        return float(self._coefficients @ _features(tokens, area))

    def seconds_per_token(self, batch_tokens: float) -> float | None:
        """Seconds a token costs in batches of so many, of typical length; None while still learning."""
        if batch_tokens not in self._per_token:  # asked for every call, learned every few batches
            length = min(TYPICAL_LENGTH, batch_tokens)
            took_s = self.predict(tokens=batch_tokens, area=batch_tokens * length)
            self._per_token[batch_tokens] = None if not took_s else took_s / batch_tokens
        return self._per_token[batch_tokens]


def _features(tokens: float, area: float) -> Floats:
    return np.array([1.0, tokens / TOKEN_SCALE, area / AREA_SCALE])


def _solve_nonnegative(moments: Floats, targets: Floats) -> Floats:
    """Least squares from normal equations, leaving out coefficients that would be negative."""
    active = [0, 1, 2]
    found = np.zeros(3)
    while active:
        part = moments[np.ix_(active, active)] + RIDGE * np.eye(len(active))
        solved = np.linalg.solve(part, targets[active])
        worst = int(np.argmin(solved))
        if solved[worst] >= 0:
            found[active] = solved
            return found
        del active[worst]
    return found
