"""Vectors of tokens: late interaction's score, and fewer vectors for the same text."""

from collections.abc import Sequence

import numpy as np

from nestvec.engine.types import FloatArray


def max_sim(query: FloatArray, documents: Sequence[FloatArray]) -> list[float]:
    """Score each document: the sum over the query's tokens of the greatest cosine with any of its tokens (MaxSim).

    Source: ColBERT (arXiv:2004.12832), section 3.

    Args:
        query: Vectors of the query's tokens, (q, D), unit length.
        documents: Vectors of each document's tokens, (n, D), unit length.
    """
    wide = query.astype(np.float64)
    return [
        float((wide @ document.T.astype(np.float64)).max(axis=1).sum()) for document in documents
    ]


def pool_tokens(vectors: FloatArray, factor: int) -> FloatArray:
    """Merge like token vectors into their mean, down to one in `factor`; the first vector is kept.

    Source: token pooling (arXiv:2409.14683); Ward's clustering of cosine distances, two clusters at a time (Lance and
    Williams, 1967).

    Args:
        vectors: The tokens' vectors, (n, D), unit length.
        factor: How many become one, at least 1; 1 changes nothing.

    Returns:
        The vectors, (m, D), m = 1 + max((n - 1) // factor, 1), not of unit length.
    """
    if factor <= 1 or len(vectors) <= 2:  # noqa: PLR2004 - the first, and one to keep
        return vectors
    others = vectors[1:]
    count = max(len(others) // factor, 1)
    clusters = [[index] for index in range(len(others))]
    wide = others.astype(np.float64)
    distance = np.maximum(1 - wide @ wide.T, 0) ** 2
    sizes = np.ones(len(others))
    np.fill_diagonal(distance, np.inf)
    for _ in range(len(others) - count):
        first, second = np.unravel_index(int(distance.argmin()), distance.shape)
        gap, total = distance[first, second], sizes[first] + sizes[second] + sizes
        merged = (sizes[first] + sizes) * distance[first]
        merged += (sizes[second] + sizes) * distance[second]
        distance[first] = distance[:, first] = (merged - sizes * gap) / total
        distance[first, first] = np.inf
        distance[second] = distance[:, second] = np.inf
        sizes[first] += sizes[second]
        clusters[first] += clusters[second]
        clusters[second] = []
    means = [
        others[members].mean(axis=0)
        for members in sorted(cluster for cluster in clusters if cluster)
    ]
    return np.concatenate([vectors[:1], np.asarray(means, np.float32)])
