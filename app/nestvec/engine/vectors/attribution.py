"""Which tokens make two texts alike: the cosine of two pooled vectors, split exactly over pairs of tokens. Pure.

A vector that is a weighted sum of token states p = Σ wᵢ sᵢ has the dot product p·q = Σᵢⱼ wᵢ sᵢ · vⱼ tⱼ; divided by both
norms its terms sum to the cosine. It says what the last layer holds at a token's place, which has seen its
neighbours: not what the token would mean alone.

Source: An Attribution Method for Siamese Encoders (arXiv:2310.05703), section 3, of which this is the last-layer case.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import FloatArray

Wide = NDArray[np.float64]


def _first(n: int) -> Wide:
    found: Wide = np.eye(1, n, 0)[0]
    return found


def _last(n: int) -> Wide:
    found: Wide = np.eye(1, n, n - 1)[0]
    return found


# Poolings that are weighted sums of token states; the norm takes any common factor out.
WEIGHTS: Final[Mapping[str, Callable[[int], Wide]]] = {
    "mean": lambda n: np.full(n, 1 / n),
    "mean_sqrt_len": lambda n: np.full(n, 1 / n),
    "weighted_mean": lambda n: np.arange(1, n + 1) / (n * (n + 1) / 2),
    "cls": _first,
    "last_token": _last,
}


def contributions(
    first: FloatArray, second: FloatArray, pooling: str, dimensions: int | None = None
) -> Wide:
    """What each pair of tokens adds to the cosine.

    Args:
        first: Token states of a text, (n, H).
        second: Of another, (m, H).
        pooling: A key of `WEIGHTS`.
        dimensions: Of the vectors compared; None for all.

    Returns:
        (n, m), float64; sums to the cosine.
    """
    weigh = WEIGHTS[pooling]
    one, other = (
        states[:, :dimensions].astype(np.float64) * weigh(len(states))[:, None]
        for states in (first, second)
    )
    norms = np.linalg.norm(one.sum(axis=0)) * np.linalg.norm(other.sum(axis=0))
    shared: Wide = one @ other.T / max(float(norms), 1e-12)
    return shared
