"""Arrival rates: of a class, of the other keys in it, from the first seconds on, and in bounded memory."""

import pytest
from nestvec.engine.core.batching.arrival_rates import MAX_KEYS, WINDOW_S, ArrivalRates
from nestvec.engine.types import Priority

QUERY, BULK = Priority.INTERACTIVE, Priority.BULK


@pytest.mark.parametrize("seconds", [2, 30])
def test_a_steady_stream_is_measured_by_class_and_key(seconds: int) -> None:
    """Two seconds of a stream say as much as half a minute of it."""
    rates = ArrivalRates()
    for tick in range(seconds * 10):
        rates.add(QUERY, "a", 30, tick / 10)
        rates.add(QUERY, "b", 10, tick / 10)
    now_s = float(seconds)
    assert rates.of_class(QUERY, now_s) == pytest.approx(400, rel=0.1)
    assert rates.of_others(QUERY, "a", now_s) == pytest.approx(100, rel=0.1)
    assert rates.of_others(QUERY, "new", now_s) == pytest.approx(400, rel=0.1)
    assert rates.of_class(BULK, now_s) == 0


def test_one_call_is_no_stream_and_a_stream_that_ended_is_forgotten() -> None:
    """A lone call counts as what came in a second, and soon for nothing."""
    rates = ArrivalRates()
    rates.add(QUERY, "", 1000, 0.0)
    assert rates.of_class(QUERY, 0.0) <= 1000
    assert rates.of_class(QUERY, 10 * WINDOW_S) < 1


def test_keys_are_bounded() -> None:
    """However many keys come, memory does not grow, and those that send most are kept."""
    rates = ArrivalRates()
    for number in range(3 * MAX_KEYS):
        rates.add(QUERY, f"key-{number}", 1, 0.0)
        rates.add(QUERY, "busy", 100, 0.0)
    assert len(rates._sums) <= MAX_KEYS
    total = 3 * MAX_KEYS * 101
    assert rates.of_others(QUERY, "busy", 0.0) == pytest.approx(
        total - 3 * MAX_KEYS * 100, rel=0.01
    )
