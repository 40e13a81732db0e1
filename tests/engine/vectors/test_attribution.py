"""Contributions of token pairs sum to the cosine, for every pooling that is a weighted sum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.vectors.attribution import WEIGHTS, contributions
from nestvec.engine.vectors.pooling import pool


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99), st.sampled_from(list(WEIGHTS)))
def test_they_sum_to_the_cosine(n: int, m: int, seed: int, pooling: str) -> None:
    """Of vectors pooled by the reference, whole and cut."""
    random = np.random.default_rng(seed)
    first, second = (random.standard_normal((size, 6)).astype(np.float32) for size in (n, m))
    for dimensions in (None, 4):
        shares = contributions(first, second, pooling, dimensions)
        one, other = (
            pool(pooling, s, np.array([0, len(s)]), np.array([0]))[0, :dimensions].astype(float)
            for s in (first, second)
        )
        cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
        assert shares.shape == (n, m)
        assert shares.sum() == pytest.approx(cosine, abs=1e-6)
