"""The margin: careful at first, near one where forecasts are good, wide where they are not, and bounded."""

import random

from nestvec.engine.core.batching.forecast_error import (
    MAX_RATIO,
    MIN_PREDICTED_S,
    ForecastError,
)


def test_good_forecasts_need_little_margin_and_none_shrinks_a_wait() -> None:
    """Where waits are as foreseen the margin nears one; where they are shorter it does not go below."""
    error = ForecastError()
    assert 1.2 < error.margin < 1.6
    for _ in range(200):
        error.observe(2.0, 2.0)
    assert 1.0 <= error.margin < 1.01
    for _ in range(200):
        error.observe(2.0, 1.0)
    assert error.margin == 1.0


def test_the_margin_covers_nearly_all_of_a_spread() -> None:
    """Of waits spread around the forecast hardly one in a hundred is longer than forecast times margin."""
    error, chooser = ForecastError(), random.Random(1)
    exceeded = 0
    for number in range(3000):
        ratio = chooser.gauss(1.2, 0.2)
        exceeded += number > 100 and ratio > error.margin
        error.observe(1.0, ratio)
    assert exceeded <= 0.02 * 2900


def test_outliers_and_tiny_waits_do_little() -> None:
    """A stall cannot close the queue, and waits in the grain of batches teach nothing."""
    error = ForecastError()
    for _ in range(100):
        error.observe(1.0, 1000.0)
    assert error.margin == MAX_RATIO
    fresh = ForecastError()
    assert fresh.observe(MIN_PREDICTED_S / 2, 10.0) is None
    assert fresh == ForecastError()
