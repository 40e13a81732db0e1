"""Vectors of tokens: merging like ones gives what a search of all distances gives, in far less time."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nestvec.engine.types import Float64Array, FloatArray
from nestvec.engine.vectors import token_vectors
from nestvec.engine.vectors.token_vectors import max_sim, pool_tokens


def unit(vectors: Float64Array) -> FloatArray:
    """Return vectors at unit length."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: FloatArray = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return scaled


def searched(vectors: FloatArray, factor: int) -> FloatArray:
    """Merge as `pool_tokens` does, by a search of all distances at each merge: n³ steps."""
    others = vectors[1:]
    clusters = [[index] for index in range(len(others))]
    wide = others.astype(np.float64)
    distance = np.maximum(1 - wide @ wide.T, 0) ** 2
    sizes = np.ones(len(others))
    np.fill_diagonal(distance, np.inf)
    for _ in range(len(others) - max(len(others) // factor, 1)):
        first, second = np.unravel_index(int(distance.argmin()), distance.shape)
        gap, total = distance[first, second], sizes[first] + sizes[second] + sizes
        merged = (sizes[first] + sizes) * distance[first]
        merged += (sizes[second] + sizes) * distance[second]
        distance[first] = distance[:, first] = (merged - sizes * gap) / total
        distance[first, first] = np.inf
        distance[second] = distance[:, second] = np.inf
        sizes[first] += sizes[second]
        clusters[first] += clusters[second]
        clusters[second] = []
    means = [others[members].mean(axis=0) for members in clusters if members]
    return np.concatenate([vectors[:1], np.asarray(means, np.float32)])


@given(
    kind=st.sampled_from(["any", "grid", "few", "same"]),
    count=st.integers(3, 40),
    width=st.integers(1, 5),
    factor=st.integers(2, 9),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_merging_gives_what_a_search_gives(
    kind: str, count: int, width: int, factor: int, seed: int
) -> None:
    """The same clusters to the last bit, also where many distances are equal."""
    rng = np.random.default_rng(seed)
    vectors: dict[str, Float64Array] = {
        "any": rng.standard_normal((count, width)),
        "grid": rng.integers(-1, 2, (count, width)).astype(np.float64),
        "few": rng.standard_normal((3, width))[rng.integers(0, 3, count)],
        "same": np.ones((count, width)),
    }
    tokens = unit(vectors[kind])
    np.testing.assert_array_equal(pool_tokens(tokens, factor), searched(tokens, factor))


@pytest.mark.parametrize("kind", ["any", "line", "hub"])
def test_twice_the_tokens_take_four_times_the_time(kind: str) -> None:
    """Not eight times; the steps are counted in the time of the thread, the better of two runs."""

    def took_s(count: int) -> float:
        noise = np.random.default_rng(count).standard_normal((count, 24))
        angles = np.linspace(0, 1.5, count)
        vectors = {
            "any": noise,
            "line": np.stack([np.cos(angles), np.sin(angles)], axis=1),
            "hub": np.concatenate([np.zeros((1, 24)), noise[1:]]) + 1,
        }[kind]
        tokens = unit(vectors)
        times = []
        for _ in range(2):
            began_s = time.thread_time()
            pool_tokens(tokens, count)
            times.append(time.thread_time() - began_s)
        return min(times)

    small_s, large_s = took_s(300), took_s(1200)
    # 4² = 16 where it is n², 64 where it is n³; arrays that leave the caches cost something too.
    assert large_s < 36 * small_s


def test_a_long_text_is_merged_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the tokens whose distances are held at once, there are still as many vectors as wanted."""
    monkeypatch.setattr(token_vectors, "MAX_CLUSTERED", 16)
    tokens = unit(np.random.default_rng(0).standard_normal((101, 8)))
    for factor in (2, 3, 7, 50, 1000):
        merged = pool_tokens(tokens, factor)
        assert len(merged) == 1 + max(100 // factor, 7)  # one a part at least
        assert np.isfinite(merged).all()


def test_max_sim_of_long_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are the same, however many cosines are held at once."""
    rng = np.random.default_rng(0)
    query, document = (unit(rng.standard_normal((n, 6))) for n in (37, 23))
    (whole,) = max_sim(query, [document])
    monkeypatch.setattr(token_vectors, "MAX_COSINES", 50)
    assert max_sim(query, [document]) == [pytest.approx(whole)]
