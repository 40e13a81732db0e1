"""Vectors of tokens: late interaction's score, and fewer vectors for the same text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.splitting import Check, go_on
from nestvec.engine.types import Float64Array, FloatArray

# Tokens whose distances are in memory at once, 128 MB of them; a longer text is merged in parts of equal length.
MAX_CLUSTERED: Final = 4096
# Cosines of a query's tokens with a document's that are in memory at once: 8 MB.
MAX_COSINES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TokenPooling:
    """How like token vectors of a text are merged.

    The class's name and its fields, in this order, go into the space fingerprint of models that have one, through
    `repr`: they must not change.

    Source: `HierarchicalTokenPooling` of sentence-transformers 6.

    Attributes:
        factor: How many become one, at least 1; 1 merges none.
        kept: How many vectors at the start of a text stay as they are.
        scales: Whether vectors are scaled to unit length behind it, whatever the call says; None: as it says.
        pools_queries: Whether queries are merged unasked.
        pools_documents: Whether documents are merged unasked.
    """

    factor: float = 1
    kept: int = 1
    scales: bool | None = None
    pools_queries: bool = False
    pools_documents: bool = False


def max_sim(query: FloatArray, documents: Sequence[FloatArray]) -> list[float]:
    """Score each document: the sum over the query's tokens of the greatest cosine with any of its tokens (MaxSim).

    Source: ColBERT (arXiv:2004.12832), section 3.

    Args:
        query: Vectors of the query's tokens, (q, D), unit length.
        documents: Vectors of each document's tokens, (n, D), unit length.
    """
    wide = query.astype(np.float64)
    return [_max_sim(wide, document.astype(np.float64)) for document in documents]


def _max_sim(query: Float64Array, document: Float64Array) -> float:
    """The score of one document, some of the query's tokens at a time."""
    step = max(1, MAX_COSINES // len(document))
    greatest = [
        (query[start : start + step] @ document.T).max(axis=1)
        for start in range(0, len(query), step)
    ]
    return float(np.concatenate(greatest).sum())


@dataclass(frozen=True, slots=True)
class NearestTokens:
    """How near the tokens of a text are to those of others, each to its nearest.

    Attributes:
        left: The text's tokens' greatest cosines with those of each other text, summed, (M,), float64.
        right: Each other text's tokens' greatest cosines with the text's, summed, (M,), float64.
    """

    left: Float64Array
    right: Float64Array


def nearest_tokens(
    left: FloatArray, rights: FloatArray, counts: NDArray[np.int64], check: Check = go_on
) -> NearestTokens:
    """Match the tokens of a text greedily with those of others, both ways.

    Args:
        left: Vectors of the text's tokens, (n, D), unit length.
        rights: Vectors of the others' tokens, one text behind the other, (T, D), unit length.
        counts: How many tokens each of the others has, (M,); a text without any is near to none: its sums are 0.
        check: Called between steps; what it raises ends the work.
    """
    sums = NearestTokens(np.zeros(len(counts)), np.zeros(len(counts)))
    has_tokens = counts > 0
    if not len(left) or not has_tokens.any():
        return sums
    starts = (np.cumsum(counts) - counts)[has_tokens]
    nearest = np.full(len(rights), -np.inf)
    step = max(1, MAX_COSINES // len(rights))
    for start in range(0, len(left), step):
        check()
        cosines = left[start : start + step] @ rights.T
        of_texts = np.maximum.reduceat(cosines, starts, axis=1)
        sums.left[has_tokens] += of_texts.sum(axis=0, dtype=np.float64)
        np.maximum(nearest, cosines.max(axis=0), out=nearest)
    sums.right[has_tokens] = np.add.reduceat(nearest, starts)
    return sums


def pool_tokens(vectors: FloatArray, factor: float, kept: int = 1) -> FloatArray:
    """Merge like token vectors into their mean, down to one in `factor`; the first ones are kept.

    Source: token pooling (arXiv:2409.14683); Ward's clustering of cosine distances, two clusters at a time (Lance and
    Williams, 1967).

    Args:
        vectors: The tokens' vectors, (n, D), unit length.
        factor: How many become one, at least 1; 1 changes nothing.
        kept: How many vectors at the start stay as they are, k.

    Returns:
        The vectors, (m, D), m = k + max((n - k) // factor, 1), not of unit length; a long text's parts have one each at
        least.
    """
    others = vectors[kept:]
    count = max(int(len(others) // factor), 1)
    if count >= len(others):
        return vectors
    parts = np.array_split(others, -(-len(others) // MAX_CLUSTERED))
    # Where each part ends, in clusters: they share the count by their lengths.
    stops = np.cumsum([len(part) for part in parts]) * count // len(others)
    means = [
        part[members].mean(axis=0)
        for part, clusters in zip(parts, np.diff(stops, prepend=0).tolist(), strict=True)
        for members in _ward_clusters(part, max(1, clusters))
    ]
    return np.concatenate([vectors[:kept], np.asarray(means, np.float32)])


def _ward_clusters(vectors: FloatArray, count: int) -> list[list[int]]:
    """Merge the two clusters that are nearest, the first such two, until so many are left.

    Each row of distances knows its least one, so that a merge looks at whole rows only where that may have changed
    (Anderberg, 1973; with bounds in place of distances until they matter, as in Müllner, arXiv:1109.2378, section 3.1):
    n² steps for n vectors but for contrived ones, where a search of all distances at each merge takes n³.

    Args:
        vectors: The vectors, (n, D), unit length.
        count: How many clusters are wanted, 1 … n.

    Returns:
        The indices of each cluster's vectors; clusters are in the order of their first.
    """
    clusters = [[index] for index in range(len(vectors))]
    distance = _squared_distances(vectors)
    sizes = np.ones(len(vectors))
    nearest = distance.argmin(axis=1)
    # At most the least distance of each row: the distance itself, unless the row is stale.
    bound = distance[np.arange(len(vectors)), nearest]
    is_stale = np.zeros(len(vectors), bool)
    for _ in range(len(vectors) - count):
        first = int(bound.argmin())
        while is_stale[first]:
            nearest[first] = distance[first].argmin()
            bound[first] = distance[first, nearest[first]]
            is_stale[first] = False
            first = int(bound.argmin())
        second = int(nearest[first])
        gap, total = distance[first, second], sizes[first] + sizes[second] + sizes
        merged = (sizes[first] + sizes) * distance[first]
        merged += (sizes[second] + sizes) * distance[second]
        row = (merged - sizes * gap) / total
        row[[first, second]] = np.inf
        distance[first] = distance[:, first] = row
        distance[second] = distance[:, second] = np.inf
        # A row whose nearest was one of the two now has it at a greater distance, or none that is known.
        is_nearer = (row < bound) | ((row == bound) & (nearest >= first))
        is_stale |= ((nearest == first) | (nearest == second)) & ~is_nearer
        is_stale &= ~is_nearer
        nearest[is_nearer] = first
        bound = np.minimum(bound, row)
        bound[second], is_stale[second] = np.inf, False
        nearest[first] = row.argmin()
        bound[first], is_stale[first] = row[nearest[first]], False
        sizes[first] += sizes[second]
        clusters[first] += clusters[second]
        clusters[second] = []
    return [cluster for cluster in clusters if cluster]


def _squared_distances(vectors: FloatArray) -> Float64Array:
    """Squared cosine distances of each two vectors, (n, n), infinite on the diagonal."""
    wide = vectors.astype(np.float64)
    distance = wide @ wide.T
    np.subtract(1, distance, out=distance)
    np.maximum(distance, 0, out=distance)
    np.square(distance, out=distance)
    np.fill_diagonal(distance, np.inf)
    return distance
