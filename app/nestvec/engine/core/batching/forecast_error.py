"""By how much forecasts of waits were wrong, and so how careful the next ones must be: pure.

Mean and mean deviation of real over predicted time are kept as TCP keeps those of round trips, and added up as it adds
them to a timeout (Jacobson, Congestion Avoidance and Control, SIGCOMM 1988).
"""

from dataclasses import dataclass
from typing import Final

GAIN: Final = 1 / 16  # calls; those admitted together tell the same
DEVIATIONS: Final = 4.0  # as for TCP
# Before anything was learned a wait may be 1.4 times as long as predicted.
FIRST_DEVIATION: Final = 0.1
MIN_PREDICTED_S: Final = 0.25  # shorter waits are mostly the grain of batches
MAX_RATIO: Final = 4.0


@dataclass(slots=True)
class ForecastError:
    """Learns from the waits of one scheduling class."""

    _mean: float = 1.0
    _deviation: float = FIRST_DEVIATION

    @property
    def margin(self) -> float:
        """What a predicted wait is multiplied with so that it is rarely exceeded; 1 … 4."""
        return min(MAX_RATIO, max(1.0, self._mean + DEVIATIONS * self._deviation))

    def observe(self, predicted_s: float, real_s: float) -> float | None:
        """Learn from a call that is done.

        Args:
            predicted_s: How long it was to take when it was admitted, without the margin.
            real_s: How long it took.

        Returns:
            Relative error of the prediction, |predicted - real| / real; None where it was too short to tell.
        """
        if predicted_s < MIN_PREDICTED_S or real_s <= 0:
            return None
        ratio = min(MAX_RATIO, real_s / predicted_s)
        self._deviation += GAIN * (abs(ratio - self._mean) - self._deviation)
        self._mean += GAIN * (ratio - self._mean)
        return abs(predicted_s - real_s) / real_s
