"""Who may join the queue: pure. What is admitted is answered in time; a refusal says when to come again.

There are four rules: the queue is bounded in tokens; one key among several leaves room for others (a threshold that
falls with the room that is left: Choudhury and Hahne, IEEE/ACM Trans. Networking 1998); nobody waits longer than the
longest wait for others' work; and what could not be done by its deadline is refused now rather than after the wait.

The wait is forecast from what the scheduler would run first, in token equivalents, at the rate of the last seconds
(`drain_rate`), with what is likely to come meanwhile and pass (`arrival_rates`), with the queues of other models on the
same cores (`shared_cores`), and times a margin learned from the forecasts before (`forecast_error`). A long text holds
its worker: others wait for it only where no other worker drains the queue before it ends, and interactive ones that are
not long never, as the priority worker takes them.
"""

import random
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from nestvec.engine.core.batching.arrival_rates import ArrivalRates
from nestvec.engine.core.batching.cost_model import OnlineCostModel
from nestvec.engine.core.batching.dispatcher import Dispatcher
from nestvec.engine.core.batching.drain_rate import DrainRate
from nestvec.engine.core.batching.forecast_error import ForecastError
from nestvec.engine.core.batching.retry_times import UNKNOWN_S, RetryTimes, jittered
from nestvec.engine.core.batching.scheduler import OTHER, Passing
from nestvec.engine.core.batching.shared_cores import CoresShare, SharedCores
from nestvec.engine.types import ItemOptions, Priority, Submission
from nestvec.errors import QueueFullError

# A key may hold this many times the room that is left: alone four fifths of the queue, two of them four ninths each.
KEY_SHARE: Final = 4.0
# Before a rate was measured under load: batches that ran alone, or first of all, say no more.
UNMEASURED_MARGIN: Final = 2.0
# Before it is tokenized a call may wait a little less long than after it, so that what is tokenized is seldom refused.
EARLY_SHARE: Final = 0.95


class Work(NamedTuple):
    """What a call asks for.

    Attributes:
        cost: What its items cost, each alone, in token equivalents.
        largest: What the dearest of them costs; 0 where nothing is known of its items.
    """

    cost: float
    largest: float = 0.0


class Forecast(NamedTuple):
    """How long a call would take from now, as its class's margin does not yet make it longer.

    Attributes:
        done_s: Until all its items have run.
        wait_s: The part of it that goes to the work of others.
    """

    done_s: float
    wait_s: float


@dataclass(slots=True)
class Admission:
    """Decides about calls before they are queued; the core asks it under its lock.

    Attributes:
        dispatcher: What waits and runs.
        cost_model: How long batches take.
        max_queue_tokens: How many tokens may wait.
        max_queue_wait_s: How long a call may wait for the work of others.
        drain_rate: How fast the queue drains under full load.
        cores: The models that share the cores.
        share: This model's part of what they have to do.
        chooser: Spreads the times at which refused callers shall come again.
        expected: Tokens by class and key of calls on their way to the queue.
    """

    dispatcher: Dispatcher
    cost_model: OnlineCostModel
    max_queue_tokens: int
    max_queue_wait_s: float
    drain_rate: DrainRate = field(default_factory=DrainRate)
    cores: SharedCores = field(default_factory=SharedCores)
    share: CoresShare = field(init=False)
    chooser: random.Random = field(default_factory=random.Random)
    expected: dict[tuple[Priority, str], int] = field(default_factory=dict)
    _arrivals: ArrivalRates = field(default_factory=ArrivalRates)
    _errors: dict[Priority, ForecastError] = field(
        default_factory=lambda: {priority: ForecastError() for priority in Priority}
    )
    _retries: RetryTimes = field(init=False)

    def __post_init__(self) -> None:
        """Join the models that share the cores."""
        self.share = self.cores.join()
        self._retries = RetryTimes(self.chooser)

    def admit(self, submission: Submission, now_s: float) -> float:
        """Admit a call, or refuse it where it would pass a bound or could not be done in time.

        Args:
            submission: The call.
            now_s: Monotonic time.

        Returns:
            How long it should take to be done, for `learn`; 0 where nothing is known or nothing waits.

        Raises:
            QueueFullError: The call is refused; the error says when to retry.
        """
        tokens, options = submission.tokens, submission.options
        waiting_tokens = self.dispatcher.waiting_tokens
        self._check_bound(tokens, options, waiting_tokens, now_s)
        work = self._work_of(submission)
        forecast = None
        if waiting_tokens or not self._is_small(tokens):
            forecast = self.forecast(work, options, now_s)
        if forecast is not None:
            self._check_time(forecast, work, options, now_s, self.max_queue_wait_s)
        self._arrivals.add(options.priority, options.key_id, work.cost, now_s)
        return forecast.done_s if forecast is not None and waiting_tokens else 0.0

    def leave(self) -> None:
        """Leave the models that share the cores."""
        self.cores.leave(self.share)

    def check_early(self, tokens: int, options: ItemOptions, now_s: float) -> None:
        """Refuse a call that is not tokenized yet, if it would be refused afterwards.

        Args:
            tokens: A low guess of its tokens.
            options: Its key, class and deadline.
            now_s: Monotonic time.

        Raises:
            QueueFullError: The call would be refused.
        """
        waiting = self.dispatcher.waiting_tokens
        if not waiting and not self.expected:
            return
        expected = sum(self.expected.values())
        self._check_bound(tokens, options, waiting + expected, now_s, is_early=True)
        before = self.expected.get((options.priority, options.key_id), 0)
        work = Work(tokens)
        forecast = self.forecast(work, options, now_s, before)
        if forecast is not None:
            self._check_time(forecast, work, options, now_s, EARLY_SHARE * self.max_queue_wait_s)

    def expect(self, tokens: int, options: ItemOptions) -> None:
        """Count tokens of a call that is on its way to the queue; negative ones once it is there."""
        group = (options.priority, options.key_id)
        expected = self.expected.get(group, 0) + tokens
        if expected:
            self.expected[group] = expected
        else:
            self.expected.pop(group, None)

    def learn(self, priority: Priority, predicted_s: float, real_s: float) -> float | None:
        """Learn from a call that is done.

        Args:
            priority: Its class.
            predicted_s: What `admit` returned.
            real_s: How long it took from then on.

        Returns:
            Relative error of the prediction; None where it was too short to tell.
        """
        return self._errors[priority].observe(predicted_s, real_s)

    def forecast(
        self, work: Work, options: ItemOptions, now_s: float, before: float = 0.0
    ) -> Forecast | None:
        """Foresee how long a call would take.

        Args:
            work: What it asks for.
            options: Its key and class.
            now_s: Monotonic time.
            before: Cost of what joins the queue before it, of the same class and key.

        Returns:
            The forecast; None while nothing is known of how fast the queue drains.
        """
        cost_s = self.cost_s()
        if cost_s is None:
            return None
        priority, key_id = options.priority, options.key_id
        passing = Passing(
            self._arrivals.of_others(priority, key_id, now_s) * cost_s,
            self._arrivals.of_class(OTHER[priority], now_s) * cost_s,
            cost_s,
        )
        dispatcher, workers = self.dispatcher, self.dispatcher.workers
        scheduler, left_of_long = dispatcher.scheduler, self._left_of_long(now_s)
        is_long = work.largest > scheduler.long_cost
        passes_long = priority is Priority.INTERACTIVE and not is_long
        order = priority, key_id, before + work.cost, passing, now_s
        done_s = (scheduler.cost_before(*order) + dispatcher.running_cost + left_of_long) * cost_s
        # Long items hold their workers: unless it takes until they have run too, the others do the rest. The priority
        # worker, which takes no long ones, is one thread more on the same cores.
        threads, held = workers + passes_long, len(dispatcher.long)
        if passes_long:
            held = min(workers, held + scheduler.waiting_long(priority))
        if 0 < held < threads:
            run_before = scheduler.cost_before(*order, passes_long=passes_long)
            beside_s = (run_before + dispatcher.running_cost) * cost_s * threads / (threads - held)
            done_s = min(done_s, beside_s)
        done_s += self.cores.seconds_of_others(self.share, done_s)
        wait_s = max(0.0, done_s - work.cost * cost_s)
        if is_long and dispatcher.waiting_tokens:  # else a long item may run on all cores
            done_s = max(done_s, wait_s + work.largest * cost_s * workers)
        return Forecast(done_s, wait_s)

    def cost_s(self) -> float | None:
        """Return the seconds of a token equivalent while all workers are busy; None while nothing is known."""
        cost_s = self.drain_rate.cost_s
        if cost_s is None:
            cost_s = self.cost_model.seconds_per_cost(self.dispatcher.scheduler.budget)
        return None if cost_s is None else cost_s / self.dispatcher.workers

    def waiting_s(self) -> float:
        """Return how long what waits will take, all workers together; 0 while nothing is known."""
        return self.dispatcher.waiting_cost * (self.cost_s() or 0.0)

    def _left_of_long(self, now_s: float) -> float:
        """Return the cost of what is left of the long batches that run."""
        worker_s = (self.cost_s() or 0.0) * self.dispatcher.workers
        return sum(
            max(0.0, running.batch.cost - (now_s - running.taken_s) / worker_s)
            for running in self.dispatcher.long
            if worker_s
        )

    def _work_of(self, submission: Submission) -> Work:
        """Return what a call asks for."""
        cost_alone = self.dispatcher.scheduler.cost_alone
        share = submission.options.layer_share
        costs = [cost_alone(item.tokens) * share for item in submission.items]
        return Work(sum(costs), max(costs, default=0.0))

    def _key_tokens(self, key_id: str, *, counts_expected: bool) -> int:
        """Return a key's tokens that wait, and those on their way to the queue."""
        tokens = self.dispatcher.scheduler.tokens_of(key_id)
        if not counts_expected:
            return tokens
        return tokens + sum(n for (_, owner), n in self.expected.items() if owner == key_id)

    def _check_bound(
        self,
        tokens: int,
        options: ItemOptions,
        waiting_tokens: int,
        now_s: float,
        *,
        is_early: bool = False,
    ) -> None:
        """Refuse what would pass the queue's bound, or its key's part of it; an empty queue takes any call."""
        max_tokens = self.max_queue_tokens
        if not waiting_tokens:
            return
        if waiting_tokens + tokens > max_tokens:
            raise self._refusal(
                f"The queue holds {waiting_tokens} tokens of at most {max_tokens}; "
                f"these inputs need {tokens} more. Retry later or send fewer inputs.",
                "queue_full",
                cost=tokens,
                excess_s=self._seconds_of(waiting_tokens + tokens - max_tokens),
                now_s=now_s,
            )
        key_id = options.key_id
        key_tokens = self._key_tokens(key_id, counts_expected=is_early) if key_id else 0
        room = max_tokens - waiting_tokens
        if key_tokens and key_tokens + tokens > KEY_SHARE * room:
            raise self._refusal(
                f"Your key has {key_tokens} tokens in a queue of at most {max_tokens}, the rest of which is kept "
                "for other keys. Retry later or send fewer inputs.",
                "queue_full",
                cost=tokens,
                # Each of the key's tokens that runs makes room besides.
                excess_s=self._seconds_of(
                    (key_tokens + tokens - KEY_SHARE * room) / (1 + KEY_SHARE)
                ),
                now_s=now_s,
            )

    def _check_time(
        self,
        forecast: Forecast,
        work: Work,
        options: ItemOptions,
        now_s: float,
        max_wait_s: float,
    ) -> None:
        """Refuse what would wait too long, or be done too late.

        A call that finds nothing waiting is refused for its deadline only, and only by a measured rate.
        """
        is_alone = not self.dispatcher.waiting_tokens and not self.expected
        margin = 1.0 if is_alone else self._margin(options.priority)
        waited_s = 0.0 if options.arrived_s is None else max(0.0, now_s - options.arrived_s)
        wait_s, done_s = forecast.wait_s * margin, forecast.done_s * margin
        if not is_alone and waited_s + wait_s > max_wait_s:
            raise self._refusal(
                f"These inputs would wait about {wait_s:.1f} s, and the longest wait is {self.max_queue_wait_s:g} s. "
                "Retry later.",
                "wait_too_long",
                cost=work.cost,
                excess_s=waited_s + wait_s - max_wait_s,
                now_s=now_s,
            )
        left_s = None if options.deadline_s is None else options.deadline_s - now_s
        if left_s is None or done_s <= left_s or (is_alone and not self.drain_rate.is_measured):
            return
        raise self._refusal(
            f"These inputs would take about {done_s:.1f} s from now, and the deadline is in "
            f"{max(0.0, left_s):.1f} s. Retry later, allow more time, or send fewer inputs.",
            "deadline",
            cost=work.cost,
            excess_s=done_s - left_s,
            now_s=now_s,
        )

    def _margin(self, priority: Priority) -> float:
        """Return what the waits of a class are multiplied with."""
        margin = self._errors[priority].margin
        return margin if self.drain_rate.is_measured else max(margin, UNMEASURED_MARGIN)

    def _is_small(self, tokens: int) -> bool:
        """Return whether a call is no larger than a batch: nothing need be foreseen for it where nothing waits."""
        return tokens <= self.dispatcher.scheduler.budget

    def _seconds_of(self, tokens: float) -> float:
        """Return how long it takes until so many of the tokens have run that wait; 0 while nothing is known."""
        return tokens * self.waiting_s() / max(1, self.dispatcher.waiting_tokens)

    def _refusal(
        self, message: str, reason: str, *, cost: float, excess_s: float, now_s: float
    ) -> QueueFullError:
        """Make the error of a refused call, which says when there will be a place for it."""
        cost_s = self.cost_s()
        if cost_s is None:
            return QueueFullError(
                message, retry_after_s=jittered(UNKNOWN_S, self.chooser), reason=reason
            )
        own_s = cost * cost_s
        waiting_s = self.waiting_s() + self._left_of_long(now_s) * cost_s
        retry_after_s = self._retries.next_s(
            excess_s=excess_s, own_s=own_s, waiting_s=waiting_s, now_s=now_s
        )
        return QueueFullError(
            message,
            retry_after_s=retry_after_s,
            reason=reason,
            own_s=own_s,
            waiting_s=waiting_s,
        )
