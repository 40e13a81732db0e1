"""Scores of embeddings: pure functions over numpy arrays."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from nestvec.engine.types import Float64Array, FloatArray

Id = TypeVar("Id", str, int)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation, ties averaged."""
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def ranks(values: Sequence[float] | Float64Array) -> Float64Array:
    """Return the ranks of values in rising order from 1, `[N]`, ties averaged."""
    _, group, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    averaged: Float64Array = (last - (counts - 1) / 2)[group]
    return averaged


def pair_cosines(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the cosine of each row of `first` with the same row of `second`, `[N]`; both `[N, D]`, unit rows."""
    cosines: FloatArray = np.einsum("nd,nd->n", first, second)
    return cosines


def ndcg(ranked: Sequence[Id], relevant: Mapping[Id, float], *, k: int) -> float:
    """Return the normalized discounted cumulative gain at K, with linear gains as in trec_eval and BEIR.

    Args:
        ranked: Documents, best first.
        relevant: Gain by document; a missing one has none.
        k: Depth at which the ranking is cut.
    """
    gains = [relevant.get(document, 0.0) for document in ranked[:k]]
    ideal = sorted(relevant.values(), reverse=True)[:k]
    best = _discounted(ideal)
    return _discounted(gains) / best if best else 0.0


def _discounted(gains: Sequence[float]) -> float:
    """Return the sum of gains, each divided by the binary logarithm of its rank + 1."""
    return sum(gain / float(np.log2(rank + 2)) for rank, gain in enumerate(gains))
