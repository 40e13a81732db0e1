"""Cosines with labels to probabilities, and to sets of labels that hold the right one at a chosen error. Pure numpy.

Source: temperature scaling (arXiv:1706.04599); a sigmoid with a slope and an offset for each label where several may go
together (Platt, 1999); split-conformal sets of labels by the score 1 - p(right label) (arXiv:2107.07511, section 1).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import Float64Array, FloatArray
from nestvec.engine.vectors.postprocess import probabilities
from nestvec.errors import InputError

# Of labels that nobody calibrated: by default, sentence-transformers' contrastive losses multiply cosines by 20 in
# training.
PLAIN_TEMPERATURE: Final = 0.05
# So many scores are kept: any error that a request chooses has its threshold in them, to a thousandth.
MAX_SCORES: Final = 1000
# (n + 1) (1 - alpha) must not be rounded up for the last bit of a product.
ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class LabelCalibration:
    """What texts of known labels taught about a map's cosines.

    Attributes:
        temperature: Cosines are divided by it before a softmax; None where the texts had several labels, of which a
            softmax says nothing.
        scores: 1 - p(right label) of texts that the temperature was not fitted on, rising, (M,), float64: all of them,
            or quantiles of many. Empty without a temperature.
        count: How many texts the scores stand for.
        sigmoids: Slope and offset of each label, for labels that may go together, (K, 2), float64.
        thresholds: The probability from which each label is given, (K,), float64.
        is_of_pictures: Whether pictures of known labels taught it, and not texts: the cosines of either say nothing of
            the other's.
    """

    temperature: float | None
    scores: Float64Array
    count: int
    sigmoids: Float64Array
    thresholds: Float64Array
    is_of_pictures: bool = False

    def independent(self, cosines: FloatArray) -> Float64Array:
        """Return the probability of each label by itself, (B, K), of cosines (B, K)."""
        logits = cosines * self.sigmoids[:, 0] + self.sigmoids[:, 1]
        return probabilities(logits, "sigmoid")

    def chosen(self, independent: Float64Array) -> NDArray[np.bool_]:
        """Return which labels are given, (B, K), by their own probabilities (B, K)."""
        return np.asarray(independent >= self.thresholds)

    def conformal_threshold(self, alpha: float) -> float:
        """Return the score up to which labels belong to a set that misses the right one in at most a share of `alpha`.

        It is the ⌈(n + 1)(1 - alpha)⌉-th smallest of n scores; of quantiles the next one above, which errs towards
        larger sets.

        Raises:
            InputError: So small an error would need more texts than there were.
        """
        rank = max(1, math.ceil((self.count + 1) * (1 - alpha) - ROUNDING))
        if rank > self.count:
            needed = f"{np.ceil(1 / alpha - 1 - ROUNDING):.6g}"
            raise InputError(
                f"'alpha' = {alpha:.6g} needs scores of {needed} texts of known labels, and there are {self.count}: "
                f"choose at least {1 / (self.count + 1):.2g}, or calibrate the map on twice {needed} texts "
                "(`nestvec model fit --concepts … --calibrate`; half of them give scores)",
                param="alpha",
            )
        return float(self.scores[(rank - 1) * len(self.scores) // self.count])


def softmax_at(cosines: FloatArray, temperature: float | Float64Array) -> Float64Array:
    """Return the probability of each label where exactly one is right, (B, K), of cosines (B, K).

    Args:
        cosines: (B, K).
        temperature: What they are divided by; of all rows, or of each, (B, 1).
    """
    return probabilities(cosines / np.asarray(temperature, np.float64), "softmax")


def kept_scores(scores: Float64Array) -> Float64Array:
    """Return scores in rising order, or where there are very many as many quantiles, each an actual score."""
    ordered = np.sort(scores)
    if len(ordered) <= MAX_SCORES:
        return ordered
    ranks = -(-np.arange(1, MAX_SCORES + 1) * len(ordered) // MAX_SCORES)
    return np.asarray(ordered[ranks - 1])
