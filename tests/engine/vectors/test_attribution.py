"""Contributions of token pairs sum to the cosine, for every pooling that is a weighted sum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.vectors.attribution import WEIGHTS, contributions
from nestvec.engine.vectors.pooling import pool


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99), st.sampled_from(list(WEIGHTS)))
def test_they_sum_to_the_cosine(n: int, m: int, seed: int, pooling: str) -> None:
    """Contributions sum to the cosine of the vectors that the reference pools, whole and cut."""
    random = np.random.default_rng(seed)
    first, second = (random.standard_normal((size, 6)).astype(np.float32) for size in (n, m))
    for dimensions in (None, 4):
        shares = contributions(first, second, pooling, dimensions)
        left, right = (
            pool(pooling, states, np.array([0, len(states)]), np.array([0]))[0, :dimensions].astype(
                float
            )
            for states in (first, second)
        )
        cosine = left @ right / (np.linalg.norm(left) * np.linalg.norm(right))
        assert shares.shape == (n, m)
        assert shares.sum() == pytest.approx(cosine, abs=1e-6)
