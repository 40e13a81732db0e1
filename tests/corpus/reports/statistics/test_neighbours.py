"""Searches give what plain sorting gives."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from nestvec.corpus.reports.statistics.neighbours import (
    nearest,
    nearest_bits,
    overlap,
    rescore,
    top_k,
)

sizes = st.tuples(st.integers(1, 6), st.integers(1, 30), st.integers(1, 30), st.integers(0, 99))


@given(sizes)
def test_the_best_come_first_and_ties_go_by_index(size: tuple[int, int, int, int]) -> None:
    """The K highest scores are those of a stable sort of the whole row."""
    rows, columns, k, seed = size
    scores = np.random.default_rng(seed).integers(0, 4, (rows, columns)).astype(np.float32)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, columns)]
    np.testing.assert_array_equal(top_k(scores, min(k, columns)), expected)


@given(sizes)
def test_bits_by_hamming_distance(size: tuple[int, int, int, int]) -> None:
    """Bits are ranked by Hamming distance, for any number of bytes."""
    rows, count, width, seed = size
    random = np.random.default_rng(seed)
    queries, documents = (random.integers(0, 256, (n, width), np.uint8) for n in (rows, count))
    distance = np.unpackbits(queries[:, None] ^ documents[None], axis=2).sum(axis=2)
    expected = np.argsort(distance, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(nearest_bits(queries, documents, 5), expected)


def test_none_finds_itself() -> None:
    """Where queries are the documents, none finds itself."""
    vectors = np.eye(4, dtype=np.float32)
    ranking = nearest(vectors, vectors, 3, skips_self=True)
    assert all(number not in row for number, row in enumerate(ranking.tolist()))
    assert nearest(vectors, vectors, 1).ravel().tolist() == [0, 1, 2, 3]


def test_candidates_are_put_in_order() -> None:
    """Candidates are put in order by the better vectors, and overlap counts what was found."""
    documents = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    queries = np.array([[1, 0], [0, 1]], np.float32)
    order = rescore(queries, documents, np.array([[2, 1, 0], [0, 1, 2]]), 2)
    assert order.tolist() == [[0, 1], [2, 1]]
    assert overlap(order, np.array([[0, 2], [1, 2]])).tolist() == [0.5, 1.0]
