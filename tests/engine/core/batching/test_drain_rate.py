"""The drain rate: a first estimate that gives way, a mean of the last seconds, and nothing forgotten while idle."""

import pytest
from nestvec.engine.core.batching.drain_rate import MIN_MEASURED_S, WINDOW_S, DrainRate


def test_nothing_is_known_at_first() -> None:
    """Without an estimate the rate is unknown until a turn was seen."""
    rate = DrainRate()
    assert rate.cost_s is None
    rate.observe(100, 0.2, 5.0, tokens=100)
    assert rate.cost_s == pytest.approx(0.002)


def test_a_first_estimate_gives_way_to_what_is_measured() -> None:
    """An estimate that is ten times too low is forgotten within seconds of full load."""
    rate = DrainRate(0.0001)
    assert rate.cost_s == pytest.approx(0.0001)
    assert not rate.is_measured
    for second in range(20):
        rate.observe(1000, 1.0, float(second), tokens=1000)
        assert rate.is_measured is (second + 1 >= MIN_MEASURED_S)
    assert rate.cost_s == pytest.approx(0.001, rel=0.05)


def test_the_last_seconds_count_and_idle_time_does_not() -> None:
    """A change shows after a window, and after an hour without load the last rate still stands."""
    rate = DrainRate()
    for second in range(30):
        rate.observe(1000, 1.0, float(second), tokens=1000)
    for second in range(30, 30 + int(3 * WINDOW_S)):
        rate.observe(500, 1.0, float(second), tokens=500)
    assert rate.cost_s == pytest.approx(0.002, rel=0.1)
    rate.observe(1, 0.002, 3600.0, tokens=1)
    assert rate.cost_s == pytest.approx(0.002, rel=0.1)


def test_one_long_turn_counts_no_more_than_the_last_seconds() -> None:
    """A turn of a minute does not drown for many seconds what short turns tell."""
    rate = DrainRate()
    rate.observe(20_000, 60.0, 0.0, tokens=20_000)
    for tenth in range(100):
        rate.observe(100, 0.1, tenth / 10, tokens=100)
    assert rate.cost_s == pytest.approx(0.001, rel=0.15)


def test_tokens_are_kept_beside_what_they_cost() -> None:
    """Where long texts cost more than their tokens, the rate in tokens is lower than that in token equivalents."""
    assert DrainRate().tokens_per_second is None
    rate = DrainRate(0.001)
    assert rate.tokens_per_second == pytest.approx(1000)
    for second in range(30):
        rate.observe(1000, 1.0, float(second), tokens=600)
    assert rate.cost_s == pytest.approx(0.001, rel=0.01)
    assert rate.tokens_per_second == pytest.approx(600, rel=0.01)
