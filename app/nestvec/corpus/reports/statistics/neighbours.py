"""What a search finds: nearest neighbours, and how far two searches agree. Pure numpy."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.corpus.reports.statistics.types import Ranking
from nestvec.engine.types import Float64Array, FloatArray

# Similarities that are computed at a time: 16 MB of float32.
BLOCK_CELLS: Final = 4_000_000


def nearest(
    queries: FloatArray, documents: FloatArray, k: int, *, skips_self: bool = False
) -> Ranking:
    """Return the K documents of greatest dot product with each query, `[Q, K]`, ties by index.

    Args:
        queries: `[Q, D]`, float32.
        documents: `[N, D]`, float32.
        k: At most N.
        skips_self: Whether queries are the documents, and none finds itself.
    """
    ranking = np.empty((len(queries), min(k, len(documents) - skips_self)), np.int64)
    step = max(1, BLOCK_CELLS // len(documents))
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ documents.T
        if skips_self:
            rows = np.arange(len(scores))
            scores[rows, start + rows] = -np.inf
        ranking[start : start + step] = top_k(scores, ranking.shape[1])
    return ranking


def nearest_bits(queries: NDArray[Any], documents: NDArray[Any], k: int) -> Ranking:
    """Return the K documents of least Hamming distance from each query, `[Q, K]`, ties by index.

    Args:
        queries: `[Q, D / 8]`, uint8.
        documents: `[N, D / 8]`, uint8.
        k: At most N.
    """
    ranking = np.empty((len(queries), min(k, len(documents))), np.int64)
    query_words, document_words = _words(queries), _words(documents)
    for row, query in enumerate(query_words):
        distances = np.bitwise_count(document_words ^ query).sum(axis=1, dtype=np.int32)
        ranking[row] = top_k(-distances[None, :], ranking.shape[1])[0]
    return ranking


def top_k(scores: NDArray[Any], k: int) -> Ranking:
    """Return the columns of the K highest scores of each row, `[Q, K]`, highest first, ties by index."""
    if k < scores.shape[1]:
        # All that are as high as the k-th, so that ties at the edge go by index.
        edge = np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k]
        candidates = [
            np.flatnonzero(row >= threshold) for row, threshold in zip(scores, edge, strict=True)
        ]
    else:
        candidates = [np.arange(scores.shape[1])] * len(scores)
    ordered = [
        columns[np.argsort(-row[columns], kind="stable")][:k]
        for row, columns in zip(scores, candidates, strict=True)
    ]
    return np.stack(ordered)


def rescore(queries: FloatArray, documents: FloatArray, candidates: Ranking, k: int) -> Ranking:
    """Return the K best of each query's candidates by dot product, `[Q, K]`, best first."""
    scores = np.stack(
        [documents[rows] @ query for query, rows in zip(queries, candidates, strict=True)]
    )
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(candidates, order, axis=1)


def overlap(ranking: Ranking, truth: Ranking) -> Float64Array:
    """Return the share of each query's true neighbours that a ranking holds, `[Q]`."""
    hits = (ranking[:, :, None] == truth[:, None, :]).any(axis=1)
    share: Float64Array = hits.mean(axis=1)
    return share


def _words(codes: NDArray[Any]) -> NDArray[Any]:
    """Return bytes as the widest words that they fill: popcounts of few large numbers are faster."""
    flat = np.ascontiguousarray(codes).view(np.uint8)
    width = next(n for n in (8, 4, 2, 1) if flat.shape[1] % n == 0)
    return flat.view(f"u{width}")
