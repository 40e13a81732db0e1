"""Admission: bounds in tokens, room for other keys, and no work that would come too late."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.backend import CostModel
from nestvec.engine.core.batching.admission import MAX_RETRY_AFTER_S, Admission
from nestvec.engine.core.batching.cost_model import MIN_SAMPLES, OnlineCostModel
from nestvec.engine.core.batching.scheduler import Scheduler
from nestvec.engine.types import ItemOptions, Layout, Priority
from nestvec.errors import QueueFullError

from tests.support.fakes import item, submission

TOKEN_S = 0.001


def make(*, max_tokens: int = 1000, learned: bool = True) -> Admission:
    """Return the admission of two workers, at a millisecond per token."""
    scheduler = Scheduler(CostModel(Layout.PACKED, 0.0), 100, 64)
    model = OnlineCostModel()
    for tokens in range(10, 10 + MIN_SAMPLES * 10, 10) if learned else ():
        model.observe(tokens=tokens, area=0.0, took_s=tokens * TOKEN_S)
    return Admission(scheduler, model, 2, max_tokens)


def put(
    admission: Admission, tokens: int, key: str = "", priority: Priority = Priority.INTERACTIVE
) -> None:
    """Let so many tokens wait."""
    call = submission(item(*[1] * tokens), key_id=key, priority=priority)
    admission.scheduler.add(len(key) + tokens, call, 0.0)


def test_an_empty_queue_takes_any_call() -> None:
    """An empty queue refuses nothing, however large and however late it is."""
    admission = make()
    admission.check_queue_bound(0, 10**9, "")
    admission.check_deadline(10**9, ItemOptions(priority=Priority.BULK), 0.001)


def test_the_bound_is_in_tokens() -> None:
    """The queue is bounded exactly to the token."""
    admission = make(max_tokens=100)
    put(admission, 60)
    admission.check_queue_bound(60, 40, "")
    with pytest.raises(QueueFullError, match="60 tokens of at most 100"):
        admission.check_queue_bound(60, 41, "")


def test_a_flooding_key_leaves_room() -> None:
    """One key gets four fifths, and another then still gets in; without keys one caller may fill the whole queue."""
    admission = make(max_tokens=1000)
    put(admission, 790, "flood")
    admission.check_queue_bound(790, 10, "flood")
    with pytest.raises(QueueFullError, match="kept for other keys"):
        admission.check_queue_bound(790, 60, "flood")
    admission.check_queue_bound(790, 200, "other")
    without_keys = make(max_tokens=1000)
    put(without_keys, 790)
    without_keys.check_queue_bound(790, 200, "")


def test_what_would_be_late_is_refused_now() -> None:
    """A call is refused where what stands before it is predicted to take longer than its deadline allows."""
    admission = make(max_tokens=10**6)
    put(admission, 2000)  # two workers: one second
    admission.check_deadline(100, ItemOptions(), 1.5)
    with pytest.raises(QueueFullError, match="deadline"):
        admission.check_deadline(100, ItemOptions(), 0.5)


def test_other_keys_and_bulk_do_not_count_against_a_query() -> None:
    """Other keys share with a query and bulk lets it pass, so only its own key's queue can make it late."""
    admission = make(max_tokens=10**6)
    put(admission, 9000, "flood")
    put(admission, 9001, "flood", Priority.BULK)
    admission.check_deadline(100, ItemOptions(key_id="other"), 0.2)
    with pytest.raises(QueueFullError):
        admission.check_deadline(100, ItemOptions(key_id="flood"), 0.2)


def test_nothing_is_foreseen_before_it_was_learned() -> None:
    """While the cost model is still learning no call is refused for its deadline, which still holds in the queue."""
    admission = make(max_tokens=10**6, learned=False)
    put(admission, 10**5)
    admission.check_deadline(100, ItemOptions(), 0.001)


@given(st.floats(0, 1e9))
def test_retry_after_is_jittered_within_what_clients_heed(waiting: float) -> None:
    """Retry times are spread, and lie within 1 to 120 seconds."""
    admission = make()
    times_s = {admission.retry_after_s(waiting) for _ in range(200)}
    assert all(1 <= time_s <= MAX_RETRY_AFTER_S for time_s in times_s)
    # Near the longest time most of them are cut down to it.
    assert len(times_s) > 1 or times_s == {MAX_RETRY_AFTER_S}


def test_refusals_spread_over_seconds() -> None:
    """Even where the queue drains in no time, clients come back in at least two different seconds."""
    admission = make(learned=False)
    times_s = {round(admission.retry_after_s(1)) for _ in range(200)}
    assert len(times_s) >= 2
