"""Late interaction: a vector for each token, queries and documents marked and masked each in their way.

Source: ColBERT (arXiv:2004.12832), section 3: markers, queries filled up with [MASK], punctuation left out of
documents; token pooling as in arXiv:2409.14683.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.engine.encoded import Encoded, Fit
from app.engine.types import FloatArray


@dataclass(frozen=True, slots=True)
class LateInteraction:
    """How a model wants its tokens.

    Attributes:
        query_marker: Id put behind the first token of a query; None for none. `document_marker` likewise.
        query_tokens: A query's length, filled up with `mask_id`; 0: as long as it is.
        document_tokens: The most of a document; 0: as many as the model takes.
        mask_id: What queries are filled up with.
        attends_expansion: Whether the query's own tokens see those.
        skip_ids: Ids whose vectors are left out of documents: punctuation.
        skips_first: Whether the first token's vector is left out (BGE-M3).
    """

    query_marker: int | None = None
    document_marker: int | None = None
    query_tokens: int = 0
    document_tokens: int = 0
    mask_id: int = 0
    attends_expansion: bool = False
    skip_ids: tuple[int, ...] = ()
    skips_first: bool = False

    def fit(self, fit: Fit, *, is_query: bool, most: int) -> Fit:
        """Leaves room for the marker.

        Args:
            fit: As the call has it.
            is_query: Else documents.
            most: Tokens that the model takes.
        """
        own = (self.query_tokens if is_query else self.document_tokens) or most
        marker = self.query_marker if is_query else self.document_marker
        return replace(fit, max_tokens=min(own, fit.max_tokens or most) - (marker is not None))

    def mark(self, encoded: Encoded, *, is_query: bool) -> Encoded:
        """Token ids as the model was trained on, and which of their vectors count."""
        marker = self.query_marker if is_query else self.document_marker
        ids = encoded.ids
        if marker is not None:
            ids = np.concatenate([ids[:1], np.array([marker], ids.dtype), ids[1:]])
        expansion = max(0, self.query_tokens - len(ids)) if is_query else 0
        if expansion:
            ids = np.concatenate([ids, np.full(expansion, self.mask_id, ids.dtype)])
        mask = np.ones(len(ids), bool)
        if not is_query:
            mask &= ~np.isin(ids, self.skip_ids)
        mask[0] &= not (self.skips_first and len(ids) > 1)
        if not mask.any():  # nothing but punctuation
            mask[0] = True
        return replace(
            encoded,
            ids=ids,
            expansion=0 if self.attends_expansion else expansion,
            token_mask=mask,
        )


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
