"""Intervals, paired differences, adjusted p, and boundaries between topics."""

import numpy as np
import pytest
from nestvec.corpus.reports.statistics.resampling import (
    MOST_RESAMPLED,
    holm,
    mean_figure,
    pair_order_figure,
    paired_difference,
    permutation_p,
)
from nestvec.corpus.reports.statistics.scores import ranks
from nestvec.corpus.reports.statistics.segmentation import window_diff
from scipy import stats


def test_both_kinds_of_intervals_agree() -> None:
    """Beyond the bound intervals are normal, and nearly those of resamples."""
    values = np.random.default_rng(1).standard_normal(2 * MOST_RESAMPLED)
    few, many = mean_figure("few", values[:MOST_RESAMPLED]), mean_figure("many", values)
    assert few.low is not None
    assert few.high is not None
    assert many.low is not None
    assert many.high is not None
    half = 1.959964 / np.sqrt(MOST_RESAMPLED)
    assert (few.high - few.low) / 2 == pytest.approx(half, rel=0.1)
    assert (many.high - many.low) / 2 == pytest.approx(half / np.sqrt(2), rel=0.05)


def test_differences_are_found_at_the_level() -> None:
    """Of 100 pairs of equal models some five have p of at most 0.05; a difference of a deviation always has."""
    random = np.random.default_rng(2)
    noise = random.standard_normal((100, 2, 20))
    none = [paired_difference(first, second)[3] for first, second in noise]
    assert 1 <= sum(p <= 0.05 for p in none) <= 12
    for first, second in noise[:9]:
        value, low, high, p = paired_difference(first, second + 2)
        assert low <= value <= high
        assert p < 0.01
    large = random.standard_normal(MOST_RESAMPLED + 1)
    assert paired_difference(large, large)[3] == 1
    assert paired_difference(large, large + 1)[3] == 0


def test_holms_adjustment() -> None:
    """It is that of the textbook: the smallest times their number, and never falling."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_ranks_and_the_order_of_pairs_are_scipys() -> None:
    """Ties are averaged, and Spearman's correlation is the library's."""
    random = np.random.default_rng(3)
    first = random.integers(0, 9, 45).astype(np.float64)
    second = first + random.standard_normal(45)
    np.testing.assert_array_equal(ranks(first), stats.rankdata(first))
    figure = pair_order_figure("order", first, second, 10, draws=50, seed=1)
    assert figure.value == pytest.approx(float(stats.spearmanr(first, second).statistic))
    assert figure.low is not None
    assert figure.low <= figure.value


def test_a_permutation_p_is_never_zero() -> None:
    """The arrangement that was found counts among the draws."""
    assert permutation_p(1.0, lambda _: 0.0, 9, 1) == 0.1
    assert permutation_p(0.0, lambda _: 0.0, 9, 1) == 1.0


def test_window_diff_by_hand() -> None:
    """The same boundaries differ nowhere, none at all differ in every window that has one."""
    true = np.array([False, True, False, False, False, True, False])
    assert window_diff(true, true) == 0
    # Two segments' half is two gaps a window: of six windows four hold a boundary.
    assert window_diff(true, np.zeros(7, bool)) == pytest.approx(4 / 6)
