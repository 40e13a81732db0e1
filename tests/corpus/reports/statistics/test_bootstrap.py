"""Bootstrap intervals hold the truth as often as they should."""

import numpy as np
import pytest
from nestvec.corpus.reports.statistics.bootstrap import Resamples
from nestvec.corpus.reports.statistics.scores import ranks
from scipy import stats


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    """The interval of a mean is the textbook's: about two standard errors on each side."""
    values = np.random.default_rng(0).standard_normal(400)
    resamples = Resamples(400)
    estimate = resamples.estimate(float(values.mean()), resamples.mean(values))
    error = values.std() / np.sqrt(400)
    assert estimate.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert estimate.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)
    assert estimate.n == 400


def test_intervals_cover_the_truth() -> None:
    """About 19 of 20 intervals hold the true mean."""
    random = np.random.default_rng(1)
    resamples = Resamples(120)
    covered = 0
    for _ in range(200):
        values = random.exponential(size=120)
        estimate = resamples.estimate(float(values.mean()), resamples.mean(values))
        covered += estimate.low <= 1.0 <= estimate.high
    assert 178 <= covered <= 199


def test_rank_correlation_in_draws() -> None:
    """The middle of the draws is the correlation itself, and their spread that of resampling the pairs."""
    random = np.random.default_rng(2)
    first = random.standard_normal(300)
    second = first + random.standard_normal(300)
    draws = Resamples(300).correlation(ranks(first), ranks(second))
    correlation = stats.spearmanr(first, second).statistic
    assert np.median(draws) == pytest.approx(correlation, abs=0.01)
    resampled = []
    for _ in range(400):
        rows = random.integers(0, 300, 300)
        resampled.append(stats.spearmanr(first[rows], second[rows]).statistic)
    assert draws.std() == pytest.approx(np.std(resampled), rel=0.2)


def test_a_score_lies_in_its_interval() -> None:
    """A score lies within its interval, however the draws round."""
    resamples = Resamples(10)
    estimate = resamples.estimate(1.0, resamples.mean(np.full(10, 1.0)) - 1e-9)
    assert estimate.low <= estimate.score <= estimate.high
