"""Retry times: one after the other, never beyond what waits, within what clients heed."""

import random

from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.core.batching.retry_times import MAX_RETRY_AFTER_S, RetryTimes, jittered


def test_refused_callers_come_one_after_the_other_while_work_waits() -> None:
    """Each is told to come when the ones before it will have had their places, and none after the queue is empty."""
    retries = RetryTimes()
    waits_s = [
        retries.next_s(excess_s=4.0, own_s=1.0, waiting_s=20.0, now_s=0.0) for _ in range(40)
    ]
    assert 3 <= waits_s[0] <= 5
    assert all(0.75 * (4 + n) <= wait_s <= 1.25 * (4 + n) for n, wait_s in enumerate(waits_s[:16]))
    assert all(15 <= wait_s <= 25 for wait_s in waits_s[17:])


def test_the_line_moves_with_the_queue() -> None:
    """Whoever is refused when those before have had their time is first in line again."""
    retries = RetryTimes()
    for _ in range(5):
        retries.next_s(excess_s=0.0, own_s=2.0, waiting_s=20.0, now_s=0.0)
    assert retries.next_s(excess_s=0.0, own_s=2.0, waiting_s=20.0, now_s=11.0) <= 3


@given(st.floats(0, 1e9))
def test_retry_after_is_jittered_within_what_clients_heed(wait_s: float) -> None:
    """Retry times are spread, and lie within 1 to 120 seconds."""
    times_s = {jittered(wait_s) for _ in range(200)}
    assert all(1 <= time_s <= MAX_RETRY_AFTER_S for time_s in times_s)
    # Near the longest time most of them are cut down to it.
    assert len(times_s) > 1 or times_s == {MAX_RETRY_AFTER_S}


def test_a_seeded_chooser_tells_the_same_times_again() -> None:
    """A simulation with a seed gives the same retry times each time, whoever else draws random numbers."""

    def told() -> list[float]:
        retries = RetryTimes(random.Random(5))
        random.random()
        return [
            retries.next_s(excess_s=4.0, own_s=1.0, waiting_s=20.0, now_s=0.0) for _ in range(5)
        ]

    assert told() == told()
