"""Intervals: they hold what they should as often as they should."""

import numpy as np
import pytest
from nestvec.tools.quality.bootstrap import Resamples
from nestvec.tools.quality.scores import ranks
from scipy import stats


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    """About two standard errors on each side."""
    values = np.random.default_rng(0).standard_normal(400)
    resamples = Resamples(400)
    found = resamples.estimate(float(values.mean()), resamples.mean(values))
    error = values.std() / np.sqrt(400)
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)
    assert found.n == 400


def test_intervals_cover_the_truth() -> None:
    """Nineteen times of twenty, give or take."""
    random = np.random.default_rng(1)
    resamples = Resamples(120)
    held = 0
    for _ in range(200):
        values = random.exponential(size=120)
        found = resamples.estimate(float(values.mean()), resamples.mean(values))
        held += found.low <= 1.0 <= found.high
    assert 178 <= held <= 199


def test_rank_correlation_in_draws() -> None:
    """Its middle is the correlation itself; its spread that of resampling the pairs."""
    random = np.random.default_rng(2)
    first = random.standard_normal(300)
    second = first + random.standard_normal(300)
    draws = Resamples(300).correlation(ranks(first), ranks(second))
    whole = stats.spearmanr(first, second).statistic
    assert np.median(draws) == pytest.approx(whole, abs=0.01)
    plain = []
    for _ in range(400):
        chosen = random.integers(0, 300, 300)
        plain.append(stats.spearmanr(first[chosen], second[chosen]).statistic)
    assert draws.std() == pytest.approx(np.std(plain), rel=0.2)


def test_a_score_lies_in_its_interval() -> None:
    """However the draws round."""
    resamples = Resamples(10)
    found = resamples.estimate(1.0, resamples.mean(np.full(10, 1.0)) - 1e-9)
    assert found.low <= found.score <= found.high
