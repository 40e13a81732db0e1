"""Vectors of a recipe's parts to its own: joined, or averaged. Pure numpy.

Parts are of unit length, after they were cut to their own dimensions. Joined, each is scaled by the root of its share
of the weights: the dot product of two joined vectors is then the weighted mean of the parts' cosines, exactly, and a
joined vector has unit length. A part without a vector (zeros, of a static model that knows none of a text's words) adds
nothing to any product.
"""

from collections.abc import Sequence

import numpy as np

from nestvec.engine.splitting import Check, go_on
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.postprocess import STEP_ROWS


def shares_of(weights: Sequence[float]) -> list[float]:
    """Return weights scaled so that they add up to 1."""
    # By the greatest first, so that no weight is so large that the sum is infinite.
    greatest = max(weights)
    scaled = [weight / greatest for weight in weights]
    return [weight / sum(scaled) for weight in scaled]


def joined(
    parts: Sequence[FloatArray], weights: Sequence[float], check: Check = go_on
) -> FloatArray:
    """Join vectors, one part behind the other.

    Args:
        parts: Unit vectors of each part, (B, D of the part), float32.
        weights: The weight of each part, positive.
        check: Called before each part is copied; what it raises ends it.

    Returns:
        (B, sum of the parts' D), float32.
    """
    width = sum(part.shape[1] for part in parts)
    vectors = np.empty((len(parts[0]), width), np.float32)
    start = 0
    for part, share in zip(parts, shares_of(weights), strict=True):
        check()
        stop = start + part.shape[1]
        np.multiply(part, np.float32(np.sqrt(share)), out=vectors[:, start:stop])
        start = stop
    return vectors


def averaged(
    parts: Sequence[FloatArray], weights: Sequence[float], check: Check = go_on
) -> FloatArray:
    """Return the weighted mean of vectors; its length is 1 only where all of them are equal.

    Args:
        parts: Unit vectors of each part, (B, D), float32.
        weights: The weight of each part, positive.
        check: Called between steps of rows; what it raises ends it.

    Returns:
        (B, D), float32; summed in float64, so that the order of parts changes the last digit at most.
    """
    shares = shares_of(weights)
    vectors = np.empty_like(parts[0])
    for start in range(0, len(vectors), STEP_ROWS):
        check()
        rows = slice(start, start + STEP_ROWS)
        wide = np.zeros(vectors[rows].shape, np.float64)
        for part, share in zip(parts, shares, strict=True):
            wide += share * part[rows].astype(np.float64)
        vectors[rows] = wide
    return vectors
