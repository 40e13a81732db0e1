"""Joined and averaged vectors: what their products are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.recipes.combining import averaged, joined, shares_of
from nestvec.engine.types import FloatArray
from nestvec.engine.vectors.postprocess import finish

SEED = st.integers(0, 2**32 - 1)
WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5)


def units(generator: np.random.Generator, rows: int, width: int) -> FloatArray:
    """Return random unit vectors."""
    raw = generator.standard_normal((rows, width)).astype(np.float32)
    return finish(raw, dimensions=None, normalize=True)


@settings(max_examples=15)
@given(SEED, WEIGHTS)
def test_the_cosine_of_a_join_is_the_weighted_mean(seed: int, weights: list[float]) -> None:
    """To 1e-6, for any weights and widths; joined vectors have unit length."""
    generator = np.random.default_rng(seed)
    parts = [units(generator, 6, int(generator.integers(2, 50))) for _ in weights]
    vectors = joined(parts, weights).astype(np.float64)
    expected = np.average([part @ part.T for part in parts], axis=0, weights=weights)
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@settings(max_examples=15)
@given(SEED, st.permutations(range(4)))
def test_the_order_of_parts_changes_no_product(seed: int, order: list[int]) -> None:
    """Neither of joins nor of means, beyond 1e-6."""
    generator = np.random.default_rng(seed)
    weights = generator.uniform(0.1, 2, 4)
    parts = [units(generator, 5, 16) for _ in weights]
    for combine in (joined, averaged):
        first = combine(parts, weights.tolist())
        second = combine([parts[n] for n in order], weights[order].tolist())
        np.testing.assert_allclose(first @ first.T, second @ second.T, atol=1e-6)


def test_a_mean_is_that_of_weighted_rows() -> None:
    """Rows beyond a step of the sum are summed as well."""
    generator = np.random.default_rng(1)
    parts = [units(generator, 200, 8) for _ in range(2)]
    expected = 0.25 * parts[0].astype(np.float64) + 0.75 * parts[1]
    np.testing.assert_allclose(averaged(parts, [1, 3]), expected, atol=1e-7)


@pytest.mark.parametrize("weights", [[1e308, 1e308, 1e308], [5e-324, 1e-323], [1e-200, 1e200]])
def test_shares_of_any_weights_add_up_to_one(weights: list[float]) -> None:
    """Also where their sum is beyond what a float holds."""
    shares = shares_of(weights)
    assert sum(shares) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in shares)


def test_a_part_without_a_vector_adds_nothing() -> None:
    """Zeros, of a static model that knows no word, leave the other part's share of the product."""
    generator = np.random.default_rng(2)
    part = units(generator, 3, 8)
    vectors = joined([part, np.zeros((3, 4), np.float32)], [3, 1])
    np.testing.assert_allclose(vectors @ vectors.T, 0.75 * (part @ part.T), atol=1e-6)
