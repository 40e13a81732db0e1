"""Vectors of tokens: late interaction's score, and fewer vectors for the same text."""

from collections.abc import Sequence

import numpy as np

from nestvec.engine.types import FloatArray


def max_sim(query: FloatArray, documents: Sequence[FloatArray]) -> list[float]:
    """Sum over a query's tokens of the greatest cosine with any token of a document.

    Args:
        query: (q, D), unit vectors.
        documents: (n, D) each.
    """
    wide = query.astype(np.float64)
    return [float((wide @ own.T.astype(np.float64)).max(axis=1).sum()) for own in documents]


def pool_tokens(vectors: FloatArray, factor: int) -> FloatArray:
    """Fewer token vectors: like ones merged into their mean, down to one in `factor`; the first is kept.

    Ward's clustering of cosine distances, two clusters at a time (Lance and Williams, 1967).

    Args:
        vectors: (n, D), unit vectors.
        factor: At least 1; 1 changes nothing.

    Returns:
        (m, D), m = 1 + max((n - 1) // factor, 1), not of unit length.
    """
    if factor <= 1 or len(vectors) <= 2:  # noqa: PLR2004 - the first, and one to keep
        return vectors
    rest = vectors[1:]
    wanted = max(len(rest) // factor, 1)
    clusters = [[number] for number in range(len(rest))]
    wide = rest.astype(np.float64)
    distance = np.maximum(1 - wide @ wide.T, 0) ** 2
    sizes = np.ones(len(rest))
    np.fill_diagonal(distance, np.inf)
    for _ in range(len(rest) - wanted):
        one, other = np.unravel_index(int(distance.argmin()), distance.shape)
        near, total = distance[one, other], sizes[one] + sizes[other] + sizes
        merged = (sizes[one] + sizes) * distance[one] + (sizes[other] + sizes) * distance[other]
        distance[one] = distance[:, one] = (merged - sizes * near) / total
        distance[one, one] = np.inf
        distance[other] = distance[:, other] = np.inf
        sizes[one] += sizes[other]
        clusters[one] += clusters[other]
        clusters[other] = []
    means = [rest[members].mean(axis=0) for members in sorted(c for c in clusters if c)]
    return np.concatenate([vectors[:1], np.asarray(means, np.float32)])
