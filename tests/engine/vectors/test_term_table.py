"""BM25 over token ids: by hand, and against the formula as it is written down."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.types import IdArray
from nestvec.engine.vectors.term_table import TermTable, count_terms, term_products

VOCABULARY = 12
SPECIAL = (0, 1)
IDS = st.lists(st.integers(0, VOCABULARY - 1), max_size=9)


def ids_of(*numbers: int) -> IdArray:
    """Return token ids."""
    return np.array(numbers, np.int32)


def table_of(texts: Sequence[Sequence[int]]) -> TermTable:
    """Count the terms of texts."""
    return count_terms((ids_of(*text) for text in texts), VOCABULARY, SPECIAL, "space")


def bm25(query: Sequence[int], document: Sequence[int], corpus: Sequence[Sequence[int]]) -> float:
    """Return the sum of the formula, one occurrence of the query after the other."""
    plain = [[term for term in text if term not in SPECIAL] for text in corpus]
    own = [term for term in document if term not in SPECIAL]
    average = sum(map(len, plain)) / len(plain)
    score = 0.0
    for term in query:
        if term in SPECIAL or term not in own:
            continue
        n = sum(term in text for text in plain)
        idf = math.log(1 + (len(plain) - n + 0.5) / (n + 0.5))
        frequency = own.count(term)
        score += idf * frequency / (frequency + 1.2 * (1 - 0.75 + 0.75 * len(own) / average))
    return score


def test_weights_by_hand() -> None:
    """Two texts of 3 and 1 tokens: an average of 2; term 5 is in both, 6 in one, 7 in none."""
    table = table_of([[0, 5, 6, 6, 1], [5]])
    assert (table.documents, table.tokens, table.average_tokens) == (2, 4, 2.0)
    np.testing.assert_allclose(table.idf[[5, 6, 7]], [math.log(1.2), math.log(2), math.log(6)])
    rows = table.document_weights(ids_of(0, 6, 5, 6, 1))
    # 1.2 * (0.25 + 0.75 * 3 / 2) = 1.65
    expected = [[5, math.log(1.2) / 2.65], [6, math.log(2) * 2 / 3.65]]
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(table.query_weights(ids_of(9, 5, 9, 1)), [[5, 1], [9, 2]])
    assert table.document_weights(ids_of()).shape == (0, 2)


def test_a_text_without_terms_cannot_be_counted() -> None:
    """Special tokens alone give no average length."""
    for texts in ([], [[0, 1]]):
        with pytest.raises(ValueError, match="no text has a term"):
            table_of(texts)


def test_other_counts_are_another_space() -> None:
    """Weights of two tables are not to be compared, and their fingerprints tell."""
    assert table_of([[5, 6]]).space == table_of([[6, 5]]).space
    others = {table_of(texts).space for texts in ([[5, 6]], [[5, 7]], [[5, 6, 6]], [[5, 6], []])}
    assert len(others) == 4


@given(
    st.lists(IDS, min_size=1, max_size=6).filter(
        lambda texts: any(max(t, default=0) > 1 for t in texts)
    ),
    IDS,
)
def test_products_are_the_formulas(corpus: list[list[int]], query: list[int]) -> None:
    """The product of a query's weights with a document's is BM25, and no weight is negative."""
    table = table_of(corpus)
    documents = [table.document_weights(ids_of(*text)) for text in corpus]
    for rows in documents:
        assert (rows[:, 1] > 0).all()
        assert (np.diff(rows[:, 0]) > 0).all()
    weighed = table.query_weights(ids_of(*query))
    got = term_products(weighed, np.concatenate(documents), map(len, documents))
    np.testing.assert_allclose(got, [bm25(query, text, corpus) for text in corpus], rtol=1e-5)
