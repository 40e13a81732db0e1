"""Scores of embeddings: pure functions over numpy arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import FormatError

Floats = NDArray[np.float32]


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation, ties averaged.

    Raises:
        FormatError: scipy is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise FormatError("quality needs scipy: pip install 'nestvec[quality]'") from error
    result: Any = stats.spearmanr(first, second)
    return float(result.statistic)


def pair_cosines(first: Floats, second: Floats) -> NDArray[np.float32]:
    """Cosine of each row of one with the same row of the other; both (N, D), unit rows; (N,)."""
    cosines: NDArray[np.float32] = np.einsum("nd,nd->n", first, second)
    return cosines


def rank_documents(queries: Floats, documents: Floats, *, k: int) -> NDArray[np.int64]:
    """Indices of the k nearest documents of each query, nearest first; (Q, k)."""
    similarity = queries @ documents.T
    order: NDArray[np.int64] = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return order


def rank_by_bits(
    queries: NDArray[np.uint8], documents: NDArray[np.uint8], *, k: int
) -> NDArray[np.int64]:
    """Indices of the k documents with the fewest other bits, for each query; both (N, D / 8); (Q, k)."""
    order = []
    for query in queries:
        distance = np.bitwise_count(documents ^ query).sum(axis=1, dtype=np.int64)
        order.append(np.argsort(distance, kind="stable")[:k])
    return np.stack(order)


def rescore(queries: Floats, documents: Floats, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
    """Candidates of each query, (Q, k), in the order of their float similarity; (Q, k)."""
    near = np.einsum("qd,qkd->qk", queries, documents[candidates])
    order = np.argsort(-near, axis=1, kind="stable")
    return np.take_along_axis(candidates, order, axis=1)


def ndcg(ranked: Sequence[str], relevant: Mapping[str, float], *, k: int) -> float:
    """Normalised discounted cumulative gain at k, linear gains as in trec_eval and BEIR.

    Args:
        ranked: Document ids, best first.
        relevant: Gain by document id; missing ones have none.
        k: Depth.
    """
    gains = [relevant.get(document, 0.0) for document in ranked[:k]]
    ideal = sorted(relevant.values(), reverse=True)[:k]
    best = _discounted(ideal)
    return _discounted(gains) / best if best else 0.0


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / float(np.log2(rank + 2)) for rank, gain in enumerate(gains))
