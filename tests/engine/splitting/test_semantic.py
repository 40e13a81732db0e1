"""Turns of matter: valleys between sentences, by vectors that a test makes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.splitting.semantic import boundaries, depths, similarities
from numpy.typing import NDArray


def topics(lengths: list[int], noise: float = 0.2, seed: int = 0) -> NDArray[np.float32]:
    """Vectors of sentences on topics that follow each other, so many on each, of unit length."""
    random = np.random.default_rng(seed)
    centres = np.linalg.qr(random.standard_normal((16, len(lengths))))[0].T
    rows = np.repeat(centres, lengths, axis=0) + noise * random.standard_normal((sum(lengths), 16))
    vectors: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(
        np.float32
    )
    return vectors


def test_topics_are_found() -> None:
    """Where topics follow each other, each begins a chunk, and nothing else does."""
    lengths = [6, 9, 5, 8]
    vectors = topics(lengths, noise=0.1)
    assert boundaries(vectors, [10] * sum(lengths)) == [6, 15, 20]


def test_similarities_are_those_of_means() -> None:
    """A gap's value is the cosine of the means of up to four vectors on either side."""
    vectors = topics([3, 4])
    expected = []
    for gap in range(1, 7):
        before, behind = vectors[max(0, gap - 4) : gap].mean(0), vectors[gap : gap + 4].mean(0)
        expected.append(before @ behind / np.linalg.norm(before) / np.linalg.norm(behind))
    np.testing.assert_allclose(similarities(vectors), expected, atol=1e-6)


def test_depths_are_of_whole_valleys() -> None:
    """A valley is measured from the peaks on both sides, not from its neighbours."""
    values = np.array([0.9, 0.6, 0.2, 0.5, 0.8, 0.7])
    np.testing.assert_allclose(depths(values), [0.0, 0.3, 1.3, 0.3, 0.0, 0.1], atol=1e-12)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_sentences(count: int) -> None:
    """Documents of very few sentences are cut or not, but never fail."""
    vectors = topics([max(count, 1)])[:count]
    assert set(boundaries(vectors, [5] * count, 5)) <= set(range(1, count))


sizes = st.lists(st.integers(1, 40), min_size=2, max_size=60)


@settings(max_examples=40)
@given(sizes, st.sampled_from([0, 16, 64]), st.integers(0, 3))
def test_bounds_on_tokens(tokens: list[int], max_tokens: int, seed: int) -> None:
    """Edges rise; chunks are short enough, but for single sentences that are longer."""
    vectors = topics([len(tokens)], noise=1.0, seed=seed)
    edges = boundaries(vectors, tokens, max_tokens)
    assert edges == sorted(set(edges))
    assert set(edges) <= set(range(1, len(tokens)))
    for first, last in itertools.pairwise([0, *edges, len(tokens)]):
        assert not max_tokens or last - first == 1 or sum(tokens[first:last]) <= max_tokens


def test_chunks_are_not_too_short() -> None:
    """Of two valleys close to one another the deeper one counts."""
    vectors = topics([8, 1, 8], noise=0.05)
    free = boundaries(vectors, [10] * 17)
    held = boundaries(vectors, [10] * 17, 120)
    assert len(held) <= len(free) + 1
    lengths = np.diff([0, *held, 17]) * 10
    assert lengths.min() >= 30
