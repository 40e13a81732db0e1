"""Admission: bounds in tokens, room for other keys, and no work that would come too late."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.engine.backend import CostModel
from nestvec.engine.core.admission import MAX_RETRY_AFTER_S, Admission
from nestvec.engine.core.cost_model import LEAST_SAMPLES, OnlineCostModel
from nestvec.engine.core.scheduler import Scheduler
from nestvec.engine.types import Item, Layout, Priority
from nestvec.errors import QueueFullError

from tests.support.fakes import item

TOKEN_S = 0.001


def admission(*, most: int = 1000, learned: bool = True) -> Admission:
    """Of two workers, at a millisecond a token."""
    scheduler = Scheduler(CostModel(Layout.PACKED, 0.0), 100, 64)
    model = OnlineCostModel()
    for tokens in range(10, 10 + LEAST_SAMPLES * 10, 10) if learned else ():
        model.observe(tokens=tokens, area=0.0, took_s=tokens * TOKEN_S)
    return Admission(scheduler, model, 2, most)


def put(made: Admission, tokens: int, key: str = "", priority: str = "interactive") -> None:
    """Let so many tokens wait."""
    one = item(*[1] * tokens)
    waiting = Item(one.ids, key_id=key, priority=Priority(priority))
    made.scheduler.add(len(key) + tokens, [waiting], 0.0)


def test_an_empty_queue_takes_any_call() -> None:
    """However large, however late."""
    made = admission()
    made.check_room(0, 10**9, "")
    made.check_wait(10**9, "", Priority.BULK, 0.001)


def test_the_bound_is_in_tokens() -> None:
    """To the token."""
    made = admission(most=100)
    put(made, 60)
    made.check_room(60, 40, "")
    with pytest.raises(QueueFullError, match="60 tokens of at most 100"):
        made.check_room(60, 41, "")


def test_a_flooding_key_leaves_room() -> None:
    """It gets four fifths; another key then gets in, and without keys the whole queue is one caller's."""
    made = admission(most=1000)
    put(made, 790, "flood")
    made.check_room(790, 10, "flood")
    with pytest.raises(QueueFullError, match="kept for other keys"):
        made.check_room(790, 60, "flood")
    made.check_room(790, 200, "other")
    open_one = admission(most=1000)
    put(open_one, 790)
    open_one.check_room(790, 200, "")


def test_what_would_be_late_is_refused_now() -> None:
    """By the predicted time of what stands before it."""
    made = admission(most=10**6)
    put(made, 2000)  # two workers: one second
    made.check_wait(100, "", Priority.INTERACTIVE, 1.5)
    with pytest.raises(QueueFullError, match="deadline"):
        made.check_wait(100, "", Priority.INTERACTIVE, 0.5)


def test_other_keys_and_bulk_do_not_count_against_a_query() -> None:
    """They share with it, or let it pass."""
    made = admission(most=10**6)
    put(made, 9000, "flood")
    put(made, 9001, "flood", "bulk")
    made.check_wait(100, "other", Priority.INTERACTIVE, 0.2)
    with pytest.raises(QueueFullError):
        made.check_wait(100, "flood", Priority.INTERACTIVE, 0.2)


def test_nothing_is_foreseen_before_it_was_learned() -> None:
    """The deadline itself still holds."""
    made = admission(most=10**6, learned=False)
    put(made, 10**5)
    made.check_wait(100, "", Priority.INTERACTIVE, 0.001)


@given(st.floats(0, 1e9))
def test_retry_after_is_jittered_within_what_clients_heed(waiting: float) -> None:
    """One to 120 seconds."""
    made = admission()
    found = {made.retry_after_s(waiting) for _ in range(20)}
    assert all(1 <= one <= MAX_RETRY_AFTER_S for one in found)
    assert len(found) > 10 or found == {MAX_RETRY_AFTER_S}


def test_refusals_spread_over_seconds() -> None:
    """Also where the queue drains in no time: rounded up, clients come back in two or three different seconds."""
    made = admission(learned=False)
    found = {round(made.retry_after_s(1)) for _ in range(200)}
    assert len(found) >= 2
