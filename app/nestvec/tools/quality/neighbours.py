"""What a search finds: nearest neighbours, and how far two searches agree. Pure numpy."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import FloatArray

Ranking = NDArray[np.int64]  # (Q, k), nearest first
STEP_CELLS: Final = 4_000_000  # similarities at a time: 16 MB


def nearest(
    queries: FloatArray, documents: FloatArray, k: int, *, skips_self: bool = False
) -> Ranking:
    """The k documents of greatest dot product with each query, ties by index.

    Args:
        queries: (Q, D), float32.
        documents: (N, D), float32.
        k: At most N.
        skips_self: Whether queries are the documents, and none finds itself.
    """
    found = np.empty((len(queries), min(k, len(documents) - skips_self)), np.int64)
    step = max(1, STEP_CELLS // len(documents))
    for start in range(0, len(queries), step):
        near = queries[start : start + step] @ documents.T
        if skips_self:
            rows = np.arange(len(near))
            near[rows, start + rows] = -np.inf
        found[start : start + step] = best(near, found.shape[1])
    return found


def nearest_bits(queries: NDArray[Any], documents: NDArray[Any], k: int) -> Ranking:
    """The k documents of least Hamming distance, ties by index; both (…, D / 8), uint8."""
    found = np.empty((len(queries), min(k, len(documents))), np.int64)
    wide_queries, wide_documents = _words(queries), _words(documents)
    for number, query in enumerate(wide_queries):
        other = np.bitwise_count(wide_documents ^ query).sum(axis=1, dtype=np.int32)
        found[number] = best(-other[None, :], found.shape[1])[0]
    return found


def best(scores: NDArray[Any], k: int) -> Ranking:
    """Columns of the k highest scores of each row, highest first, ties by index; (Q, k)."""
    if k < scores.shape[1]:
        # All that are as high as the k-th, so that ties at the edge go by index.
        edge = np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k]
        chosen = [np.flatnonzero(row >= least) for row, least in zip(scores, edge, strict=True)]
    else:
        chosen = [np.arange(scores.shape[1])] * len(scores)
    ordered = [
        own[np.argsort(-row[own], kind="stable")][:k]
        for row, own in zip(scores, chosen, strict=True)
    ]
    return np.stack(ordered)


def among(queries: FloatArray, documents: FloatArray, candidates: Ranking, k: int) -> Ranking:
    """The k best of each query's candidates by dot product; (Q, k)."""
    near = np.stack(
        [documents[own] @ query for query, own in zip(queries, candidates, strict=True)]
    )
    order = np.argsort(-near, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(candidates, order, axis=1)


def overlap(found: Ranking, wanted: Ranking) -> NDArray[np.float64]:
    """Share of each query's wanted documents that were found; (Q,)."""
    hits = (found[:, :, None] == wanted[:, None, :]).any(axis=1)
    share: NDArray[np.float64] = hits.mean(axis=1)
    return share


def _words(codes: NDArray[Any]) -> NDArray[Any]:
    """Bytes as the widest words that they fill: popcounts of few large numbers are faster."""
    flat = np.ascontiguousarray(codes).view(np.uint8)
    width = next(n for n in (8, 4, 2, 1) if flat.shape[1] % n == 0)
    return flat.view(f"u{width}")
