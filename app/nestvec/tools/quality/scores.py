"""Scores of embeddings: pure functions over numpy arrays."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nestvec.errors import FormatError

Floats = NDArray[np.float32]
Id = TypeVar("Id", str, int)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation, ties averaged.

    Raises:
        FormatError: scipy is not installed.
    """
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def ranks(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Places in rising order from 1, ties averaged; (N,).

    Raises:
        FormatError: scipy is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise FormatError("quality needs scipy: pip install 'nestvec[quality]'") from error
    found: NDArray[np.float64] = np.asarray(stats.rankdata(values), np.float64)
    return found


def pair_cosines(first: Floats, second: Floats) -> NDArray[np.float32]:
    """Cosine of each row of one with the same row of the other; both (N, D), unit rows; (N,)."""
    cosines: NDArray[np.float32] = np.einsum("nd,nd->n", first, second)
    return cosines


def ndcg(ranked: Sequence[Id], relevant: Mapping[Id, float], *, k: int) -> float:
    """Normalised discounted cumulative gain at k, linear gains as in trec_eval and BEIR.

    Args:
        ranked: Documents, best first.
        relevant: Gain by document; missing ones have none.
        k: Depth.
    """
    gains = [relevant.get(document, 0.0) for document in ranked[:k]]
    ideal = sorted(relevant.values(), reverse=True)[:k]
    best = _discounted(ideal)
    return _discounted(gains) / best if best else 0.0


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / float(np.log2(rank + 2)) for rank, gain in enumerate(gains))
