"""BM25 over a tokenizer's own ids (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009).

A document's terms carry their idf and their saturated frequency, a query's how often each occurs: the dot product of
the two is BM25.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.types import Float64Array, FloatArray, IdArray

# BM25's usual values: how soon a term's further occurrences add nothing, and how much a text's length counts.
K1: Final = 1.2
B: Final = 0.75


@dataclass(frozen=True)
class TermTable:
    """In how many texts of a corpus each token id occurs.

    Attributes:
        counts: The number of texts with each id, (V,), int64; 0 for special tokens.
        documents: Number of texts, N > 0.
        tokens: Number of their tokens together, without special ones; > 0.
        special_ids: Ids that are no terms: special tokens and the unknown one, rising.
        source: Fingerprint of the space whose tokenizer and form of texts the ids are of.
    """

    counts: NDArray[np.int64]
    documents: int
    tokens: int
    special_ids: tuple[int, ...]
    source: str

    @cached_property
    def idf(self) -> Float64Array:
        """The weight of each id, ln(1 + (N - n + 0.5) / (n + 0.5)), (V,): above 0, and greatest where n is 0."""
        values: Float64Array = np.log1p(
            (self.documents - self.counts + 0.5) / (self.counts + 0.5), dtype=np.float64
        )
        return values

    @property
    def average_tokens(self) -> float:
        """Average number of tokens of the corpus's texts."""
        return self.tokens / self.documents

    @cached_property
    def space(self) -> str:
        """Fingerprint of the weights: documents and queries weighed by the same table may be compared."""
        digest = hashlib.sha256(f"bm25 {self.source} {self.documents} {self.tokens}".encode())
        digest.update(self.counts.astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    def document_weights(self, ids: IdArray) -> FloatArray:
        """Weigh the terms of a document by idf and saturated frequency; (k, 2), ids rising.

        Args:
            ids: Its token ids, (n,).
        """
        terms, frequency = self._frequencies(ids)
        length = frequency.sum() / self.average_tokens
        saturated = frequency / (frequency + K1 * (1 - B + B * length))
        return _rows(terms, self.idf[terms] * saturated)

    def query_weights(self, ids: IdArray) -> FloatArray:
        """Weigh the terms of a query by how often each occurs; (k, 2), ids rising.

        Args:
            ids: Its token ids, (n,).
        """
        return _rows(*self._frequencies(ids))

    def _frequencies(self, ids: IdArray) -> tuple[IdArray, Float64Array]:
        terms, frequency = np.unique(ids, return_counts=True)
        is_term = ~np.isin(terms, self.special_ids)
        return terms[is_term], frequency[is_term].astype(np.float64)


def count_terms(
    texts: Iterable[IdArray], vocabulary_size: int, special_ids: Iterable[int], source: str
) -> TermTable:
    """Count in how many texts each id occurs.

    Args:
        texts: The token ids of each text, (n,).
        vocabulary_size: Number of ids there are, V.
        special_ids: Ids that are no terms.
        source: Fingerprint of the space that the ids are of.

    Raises:
        ValueError: No text has a term.
    """
    special = np.array(sorted(special_ids), np.int32)
    counts, documents, tokens = np.zeros(vocabulary_size, np.int64), 0, 0
    for ids in texts:
        terms = ids[~np.isin(ids, special)]
        counts[np.unique(terms)] += 1
        documents += 1
        tokens += len(terms)
    if not tokens:
        raise ValueError("no text has a term")
    return TermTable(counts, documents, tokens, tuple(special.tolist()), source)


def term_products(query: FloatArray, terms: FloatArray, rows: Iterable[int]) -> Float64Array:
    """Multiply a query's weights of terms with those of each document; (N,).

    Args:
        query: A row (id, weight) for each term of the query, (k, 2), ids rising.
        terms: The same of all documents, one behind the other, (R, 2).
        rows: Number of terms of each document, N of them.
    """
    counts = np.fromiter(rows, np.int64)
    if not len(query) or not len(terms):
        return np.zeros(len(counts))
    place = np.minimum(np.searchsorted(query[:, 0], terms[:, 0]), len(query) - 1)
    weights = np.where(query[place, 0] == terms[:, 0], query[place, 1].astype(np.float64), 0)
    document = np.repeat(np.arange(len(counts)), counts)
    products = np.bincount(document, weights * terms[:, 1], minlength=len(counts))
    return products.astype(np.float64)


def _rows(terms: IdArray, weights: Float64Array) -> FloatArray:
    return np.stack([terms.astype(np.float32), weights.astype(np.float32)], axis=1)
