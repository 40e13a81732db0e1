"""Which tokens make two texts alike: the cosine of two pooled vectors, split exactly over pairs of tokens. Pure.

A vector that is a weighted sum of token states p = Σ wᵢ sᵢ has the dot product p·q = Σᵢⱼ wᵢ sᵢ · vⱼ tⱼ; divided by both
norms its terms sum to the cosine. A term says what the last layer holds at a token's position, which has seen its
neighbours: not what the token would mean alone.

Source: An Attribution Method for Siamese Encoders (arXiv:2310.05703), section 3, of which this is the last-layer case.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from nestvec.engine.types import Float64Array, FloatArray


def _first(n: int) -> Float64Array:
    weights: Float64Array = np.eye(1, n, 0)[0]
    return weights


def _last(n: int) -> Float64Array:
    weights: Float64Array = np.eye(1, n, n - 1)[0]
    return weights


# Poolings that are weighted sums of token states; the norm takes any common factor out.
WEIGHTS: Final[Mapping[str, Callable[[int], Float64Array]]] = {
    "mean": lambda n: np.full(n, 1 / n),
    "mean_sqrt_len": lambda n: np.full(n, 1 / n),
    "weighted_mean": lambda n: np.arange(1, n + 1) / (n * (n + 1) / 2),
    "cls": _first,
    "last_token": _last,
}


def contributions(
    first: FloatArray, second: FloatArray, pooling: str, dimensions: int | None = None
) -> Float64Array:
    """Compute what each pair of tokens adds to the cosine of two texts.

    Args:
        first: Token states of one text, (n, H).
        second: Token states of the other, (m, H).
        pooling: A key of `WEIGHTS`.
        dimensions: Number of dimensions that are compared; None for all.

    Returns:
        The contributions, (n, m), float64; they sum to the cosine.
    """
    weigh = WEIGHTS[pooling]
    weighted, other = (
        states[:, :dimensions].astype(np.float64) * weigh(len(states))[:, None]
        for states in (first, second)
    )
    norms = np.linalg.norm(weighted.sum(axis=0)) * np.linalg.norm(other.sum(axis=0))
    shares: Float64Array = weighted @ other.T / max(float(norms), 1e-12)
    return shares
