"""Late interaction: a vector for each token, queries and documents marked and masked each in their way.

Source: ColBERT (arXiv:2004.12832), section 3: markers, queries filled up with [MASK], punctuation left out of
documents; token pooling as in arXiv:2409.14683.
"""

from dataclasses import dataclass, replace

import numpy as np

from nestvec.engine.text.encoded import Encoded, Fit


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
