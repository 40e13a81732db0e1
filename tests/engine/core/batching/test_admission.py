"""Admission: bounds in tokens, room for other keys, no wait that is too long, and no work that would come too late."""

import math

import pytest
from nestvec.engine.backend import CostModel
from nestvec.engine.core.batching.admission import EARLY_SHARE, Admission, Work
from nestvec.engine.core.batching.cost_model import MIN_SAMPLES, OnlineCostModel
from nestvec.engine.core.batching.dispatcher import Dispatcher
from nestvec.engine.core.batching.drain_rate import DrainRate
from nestvec.engine.core.batching.scheduler import Scheduler
from nestvec.engine.core.batching.shared_cores import SharedCores
from nestvec.engine.types import ItemOptions, Layout, Priority
from nestvec.errors import QueueFullError

from tests.support.fakes import item, submission

TOKEN_S = 0.001


def make(
    *,
    max_tokens: int = 10**6,
    learned: bool = True,
    measured: bool = True,
    max_wait_s: float = 10**6,
    cores: SharedCores | None = None,
    max_short_cost: float = math.inf,
) -> Admission:
    """Return the admission of two workers, at a millisecond per token, as batches and full load have told."""
    scheduler = Scheduler(CostModel(Layout.PACKED, 0.0), 100, 64, max_short_cost=max_short_cost)
    dispatcher = Dispatcher(scheduler, 2)
    model, drain_rate = OnlineCostModel(), DrainRate()
    for tokens in range(10, 10 + MIN_SAMPLES * 10, 10) if learned else ():
        model.observe(tokens=tokens, area=0.0, took_s=tokens * TOKEN_S)
    if learned and measured:
        drain_rate.observe(2000, 2000 * TOKEN_S, 0.0, tokens=2000)
    cores = cores or SharedCores()
    return Admission(dispatcher, model, max_tokens, max_wait_s, drain_rate, cores)


def put(
    admission: Admission, tokens: int, key: str = "", priority: Priority = Priority.INTERACTIVE
) -> None:
    """Let so many tokens wait."""
    call = submission(item(*[1] * tokens), key_id=key, priority=priority)
    admission.dispatcher.add(len(key) + tokens, call, 0.0)


def admit(admission: Admission, tokens: int, **options: object) -> float:
    """Ask for a call of one item of so many tokens."""
    return admission.admit(submission(item(*[1] * tokens), **options), 0.0)


def test_an_empty_queue_takes_any_call() -> None:
    """An empty queue refuses nothing for its size or for the longest wait."""
    admission = make(max_tokens=1, max_wait_s=0.001)
    admit(admission, 5000, priority=Priority.BULK)
    admission.check_early(10**9, ItemOptions(), 0.0)


def test_the_bound_is_in_tokens() -> None:
    """The queue is bounded exactly to the token."""
    admission = make(max_tokens=100)
    put(admission, 60)
    admit(admission, 40)
    with pytest.raises(QueueFullError, match="60 tokens of at most 100") as caught:
        admit(admission, 41)
    assert caught.value.reason == "queue_full"


def test_a_flooding_key_leaves_room() -> None:
    """One key gets four fifths, and another then still gets in; without keys one caller may fill the whole queue."""
    admission = make(max_tokens=1000)
    put(admission, 790, "flood")
    admit(admission, 10, key_id="flood")
    with pytest.raises(QueueFullError, match="kept for other keys"):
        admit(admission, 60, key_id="flood")
    admit(admission, 200, key_id="other")
    without_keys = make(max_tokens=1000)
    put(without_keys, 790)
    admit(without_keys, 200)


def test_what_would_be_late_is_refused_now() -> None:
    """A call is refused where what stands before it is predicted to take longer than its deadline allows."""
    admission = make()
    put(admission, 2000)  # two workers: one second
    admit(admission, 100, deadline_s=1.5)
    with pytest.raises(QueueFullError, match="deadline") as caught:
        admit(admission, 100, deadline_s=0.5)
    assert caught.value.reason == "deadline"


def test_what_cannot_be_done_in_time_even_alone_is_refused_once_that_is_measured() -> None:
    """A call that finds nothing waiting is refused for its own size only by a rate that was measured under load."""
    admission = make(measured=False)
    admit(admission, 4000, deadline_s=0.5)
    admission.drain_rate.observe(1000, 1000 * TOKEN_S, 0.0, tokens=1000)
    admit(admission, 900, deadline_s=0.5)
    with pytest.raises(QueueFullError, match="send fewer inputs"):
        admit(admission, 4000, deadline_s=0.5)


def test_nobody_waits_longer_than_the_longest_wait() -> None:
    """What others have waiting counts, with a margin; what the call itself takes does not."""
    admission = make(max_wait_s=1.0)
    put(admission, 1400)
    admit(admission, 5000)
    put(admission, 601)
    with pytest.raises(QueueFullError, match="longest wait is 1 s") as caught:
        admit(admission, 1)
    assert caught.value.reason == "wait_too_long"


def test_the_wait_counts_from_when_the_call_came() -> None:
    """What a call has waited for the front's threads is not waited again."""
    admission = make(max_wait_s=1.0)
    put(admission, 1000)
    admit(admission, 10, arrived_s=-0.2)
    with pytest.raises(QueueFullError):
        admit(admission, 10, arrived_s=-0.6)


def test_work_under_way_counts() -> None:
    """Tokens in batches that run are waited for too."""
    admission = make(max_wait_s=1.0)
    put(admission, 1900)
    admission.dispatcher.take(0.0)
    put(admission, 100)
    with pytest.raises(QueueFullError, match="longest wait"):
        admit(admission, 10)


def test_other_keys_and_bulk_do_not_count_against_a_query() -> None:
    """Other keys share with a query and bulk lets it pass, so only its own key's queue can make it late."""
    admission = make(max_wait_s=0.2)
    put(admission, 9000, "flood")
    put(admission, 9001, "flood", Priority.BULK)
    admit(admission, 100, key_id="other")
    with pytest.raises(QueueFullError):
        admit(admission, 100, key_id="flood")


def test_bulk_is_foreseen_at_the_share_that_a_stream_of_queries_leaves() -> None:
    """Queries that go on coming pass bulk though none waits now: bulk's wait is that of its share."""
    admission = make(max_wait_s=2.0)
    put(admission, 1000, priority=Priority.BULK)  # half a second alone
    assert admission.forecast(Work(10), ItemOptions(priority=Priority.BULK), 5.0).done_s < 0.6  # type: ignore[union-attr]
    for tenth in range(100):  # three quarters of what two workers can do
        admission._arrivals.add(Priority.INTERACTIVE, "", 150, tenth / 10)
    forecast = admission.forecast(Work(10), ItemOptions(priority=Priority.BULK), 10.0)
    assert forecast is not None
    assert 1.4 < forecast.done_s < 2.6


def test_other_models_on_the_same_cores_count() -> None:
    """A queue of another model takes as much of the cores as this one, for as long as it has work."""
    cores = SharedCores()
    admission, other = make(max_wait_s=1.0, cores=cores), make(cores=cores)
    put(admission, 1200)
    admit(admission, 10)
    other.share.waiting_s = 30.0
    with pytest.raises(QueueFullError):
        admit(admission, 10)
    other.share.waiting_s = 0.1
    admit(admission, 10)
    other.share.waiting_s = 30.0
    other.leave()
    admit(admission, 10)


def test_forecasts_that_were_too_good_make_the_next_ones_careful() -> None:
    """The margin follows how much longer calls took than was foreseen."""
    admission = make(max_wait_s=1.0)
    put(admission, 900)
    admit(admission, 10)
    for _ in range(64):
        admission.learn(Priority.INTERACTIVE, 1.0, 2.5)
    with pytest.raises(QueueFullError):
        admit(admission, 10)
    admit(admission, 10, priority=Priority.BULK)  # its forecasts are its own


def test_calls_on_their_way_to_the_queue_are_counted() -> None:
    """Of calls that come at once only those get to the tokenizer that there is time for."""
    admission = make(max_wait_s=1.0)
    options = ItemOptions()
    admitted = 0
    with pytest.raises(QueueFullError):  # noqa: PT012 - as many as get in
        while True:
            admission.check_early(100, options, 0.0)
            admission.expect(100, options)
            admitted += 1
    assert 0.6 * EARLY_SHARE <= admitted * 100 * TOKEN_S / 2 <= EARLY_SHARE
    for _ in range(admitted):
        admission.expect(-100, options)
    assert not admission.expected


def test_nothing_is_foreseen_before_it_was_learned() -> None:
    """While nothing is known of the rate no call is refused for time, and refusals for size spread over seconds."""
    admission = make(learned=False, max_wait_s=0.001, max_tokens=10**5)
    put(admission, 99_990)
    admit(admission, 10, deadline_s=0.001)
    times_s = set()
    for _ in range(50):
        with pytest.raises(QueueFullError) as caught:
            admit(admission, 11)
        times_s.add(round(caught.value.retry_after_s))
    assert len(times_s) >= 2


def hold(admission: Admission, workers: int, tokens: int, priority: Priority) -> None:
    """Let so many workers run a long text each."""
    for _ in range(workers):
        put(admission, tokens, priority=priority)
        assert admission.dispatcher.take(0.0).is_long


@pytest.mark.parametrize("priority", list(Priority))
@pytest.mark.parametrize("waiting", [0, 3])
def test_queries_are_admitted_beside_long_texts(priority: Priority, waiting: int) -> None:
    """Texts of half a minute that hold both workers, and more of them that wait, keep no query out: it passes them."""
    admission = make(max_wait_s=20.0, max_short_cost=250.0)
    hold(admission, 2, 30_000, priority)
    for _ in range(waiting):
        put(admission, 30_000, priority=priority)
    admit(admission, 20)
    for _ in range(20):  # queries that wait too: the priority worker has a third of the cores
        put(admission, 100)
    forecast = admission.forecast(Work(20, 20), ItemOptions(), 0.0)
    assert forecast is not None
    assert 2.9 < forecast.done_s < 3.9


def test_what_waits_behind_long_texts_is_told_the_truth() -> None:
    """Bulk and long queries wait for what is left of the long texts that run, and less as time goes by."""
    admission = make(max_wait_s=20.0, max_short_cost=250.0)
    hold(admission, 2, 30_000, Priority.BULK)
    put(admission, 1000, priority=Priority.BULK)
    for options in (ItemOptions(priority=Priority.BULK), ItemOptions()):
        left_s = []
        for now_s in (0.0, 25.0, 60.0):
            forecast = admission.forecast(Work(5000, 5000), options, now_s)
            assert forecast is not None
            left_s.append(forecast.wait_s)
        assert left_s[0] == pytest.approx(left_s[2] + 30.0)
        assert left_s[1] == pytest.approx(left_s[2] + 5.0)
    with pytest.raises(QueueFullError, match="would wait") as caught:
        admit(admission, 5000, priority=Priority.BULK)
    assert 0.75 * 10 < caught.value.retry_after_s < 1.25 * 31  # not before there is room


def test_a_free_worker_serves_while_another_is_held() -> None:
    """One long text halves two workers; what needs less than its time does not wait for it."""
    admission = make(max_wait_s=20.0, max_short_cost=250.0)
    hold(admission, 1, 60_000, Priority.BULK)
    put(admission, 4000, priority=Priority.BULK)
    forecast = admission.forecast(Work(100, 100), ItemOptions(priority=Priority.BULK), 0.0)
    assert forecast is not None
    assert forecast.done_s == pytest.approx(4.1)


def test_long_texts_that_wait_first_will_hold_workers_too() -> None:
    """A worker that is free takes the oldest next: short ones behind a long one have the priority worker only."""
    admission = make(max_wait_s=20.0, max_short_cost=250.0)
    hold(admission, 1, 60_000, Priority.INTERACTIVE)
    put(admission, 60_001)
    for _ in range(20):
        put(admission, 100)
    forecast = admission.forecast(Work(10, 10), ItemOptions(), 0.0)
    assert forecast is not None
    assert forecast.done_s == pytest.approx(3.015)


def test_a_long_text_is_not_refused_for_its_own_time() -> None:
    """A text that takes longer than the longest wait runs on an idle server, and beside another on a free worker."""
    admission = make(max_wait_s=20.0, max_short_cost=250.0)
    admit(admission, 100_000)
    hold(admission, 1, 100_000, Priority.INTERACTIVE)
    admit(admission, 100_000)


def test_forecasts_count_what_tokens_cost() -> None:
    """A token of a long text counts for more than one of a short text."""
    admission = make(max_wait_s=1.0)
    admission.dispatcher.scheduler = Scheduler(CostModel(Layout.PACKED, 0.001), 100, 64)
    put(admission, 1000)  # two thousand token equivalents: a second
    forecast = admission.forecast(Work(10), ItemOptions(), 0.0)
    assert forecast is not None
    assert forecast.done_s == pytest.approx(1.005)
    assert admission.waiting_s() == pytest.approx(1.0)
