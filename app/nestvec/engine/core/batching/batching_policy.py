"""All that decides, put together: pure, no lock, no thread, no clock of its own.

The engine's queue runs it under its lock (`work_queue`), a simulation of servers runs it on a virtual clock: what is
planned with is what serves.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from nestvec.engine.core.batching.admission import Admission
from nestvec.engine.core.batching.budget import Budget
from nestvec.engine.core.batching.cost_model import TYPICAL_TOKENS, OnlineCostModel
from nestvec.engine.core.batching.dispatcher import Assignment, Dispatcher
from nestvec.engine.core.batching.drain_rate import DrainRate
from nestvec.engine.core.batching.fair_queue import Entry
from nestvec.engine.core.batching.scheduler import AGEING_S, CostFunction, Scheduler
from nestvec.engine.core.batching.shared_cores import SharedCores


@dataclass(frozen=True, slots=True)
class BatchingOptions:
    """How work is queued and batched.

    Attributes:
        workers: Workers that run batches, the priority worker not counted.
        max_batch_tokens: Budget of a micro-batch in the backend's cost units (token equivalents).
        lookahead_items: How far the scheduler may look to sort by length.
        max_queue_tokens: Tokens that may wait before calls are refused.
        max_queue_wait_s: How long a call may wait for the work of others; calls that would wait longer are refused.
        max_batch_s: Batches are cut so as not to take longer, once their cost is known.
        first_token_s: Worker seconds that a token is thought to take before anything was measured; None: unknown.
        max_cost: Highest cost of a batch that fits into the backend's memory.
        max_mixed_tokens: Longer items share a batch with items of exactly their own length only.
    """

    workers: int
    max_batch_tokens: int
    lookahead_items: int
    max_queue_tokens: int
    max_queue_wait_s: float
    max_batch_s: float
    first_token_s: float | None = None
    max_cost: float = math.inf
    max_mixed_tokens: float = math.inf


@dataclass(slots=True)
class BatchingPolicy:
    """Scheduler, admission, cost model and budget of one model, and what they learn from batches that ran.

    Attributes:
        options: How work is queued and batched.
        dispatcher: Where items wait, and which worker is busy.
        admission: Who may join.
        cost_model: How long batches take.
        budget: How large batches may be.
        first_cost_s: Worker seconds that a token equivalent is thought to take before anything ran; 0: unknown.
    """

    options: BatchingOptions
    dispatcher: Dispatcher
    admission: Admission
    cost_model: OnlineCostModel
    budget: Budget
    first_cost_s: float = field(init=False)

    def __post_init__(self) -> None:
        """Say what is short before any batch ran."""
        self.first_cost_s = self.options.first_token_s or 0.0
        if self.first_cost_s:
            self.budget.first_within_time = self.options.max_batch_s / self.first_cost_s
        self.dispatcher.scheduler.max_short_cost = self.budget.max_short_cost

    @classmethod
    def of(
        cls,
        cost: CostFunction,
        options: BatchingOptions,
        cores: SharedCores | None = None,
        chooser: random.Random | None = None,
    ) -> Self:
        """Put the parts together.

        Args:
            cost: Price of a batch from its lengths, as the backend declares it.
            options: How work is queued and batched.
            cores: The models whose workers share cores with this one's.
            chooser: Spreads retry times; a seeded one makes them the same again.
        """
        budget = Budget(min(float(options.max_batch_tokens), options.max_cost))
        typical_cost = cost(np.array([TYPICAL_TOKENS], np.int64))
        cost_model = OnlineCostModel(typical_cost / TYPICAL_TOKENS - 1)
        scheduler = Scheduler(
            cost,
            budget.now,
            options.lookahead_items,
            ageing_s=min(AGEING_S, options.max_queue_wait_s / 2),
            max_mixed_tokens=options.max_mixed_tokens,
        )
        dispatcher = Dispatcher(scheduler, options.workers)
        admission = Admission(
            dispatcher,
            cost_model,
            options.max_queue_tokens,
            options.max_queue_wait_s,
            DrainRate(options.first_token_s),
            cores or SharedCores(),
            chooser=chooser or random.Random(),  # noqa: S311 - spreads retries, no secret
        )
        return cls(options, dispatcher, admission, cost_model, budget)

    def predicted_s(self, entries: Sequence[Entry]) -> float:
        """Return how long a batch of these entries takes at most, as far as can be foreseen; 0 while nothing is known.

        What was learned from short texts says little of long ones, so the first estimate counts as well.
        """
        tokens, area = self.size(entries)
        learned_s = self.cost_model.predict(tokens=tokens, area=area) or 0.0
        return max(learned_s, (tokens + area) * self.first_cost_s)

    def learn_batch(self, entries: Sequence[Entry], took_s: float) -> float | None:
        """Teach the cost model a batch that ran, and adapt the budget to what batches of its size would take.

        Returns:
            Relative error of the prediction for this batch; None where nothing was predicted.
        """
        tokens, area = self.size(entries)
        error = self.cost_model.observe(tokens=tokens, area=area, took_s=took_s)
        cost_s = self.cost_model.seconds_per_cost(self.options.max_batch_tokens)
        if cost_s and self.budget.within_time != (within := self.options.max_batch_s / cost_s):
            self.budget.within_time = within
            self.dispatcher.scheduler.max_short_cost = self.budget.max_short_cost
        self.budget.batch_ran()
        self.dispatcher.scheduler.budget = self.budget.now
        return error

    def learn_turn(self, assignment: Assignment, now_s: float) -> None:
        """Learn how fast the queue drains from a worker's turn under full load, which has just ended."""
        admission = self.admission
        if not assignment.is_full_load or not assignment.batch.entries:
            return
        beside = admission.cores.busy_of_others(admission.share) + self.dispatcher.is_priority_busy
        crowding = 1.0 + beside / self.dispatcher.workers
        turn_s = (now_s - assignment.taken_s) / crowding
        batch = assignment.batch
        admission.drain_rate.observe(batch.cost, turn_s, now_s, tokens=batch.tokens)

    def memory_was_short(self, cost: float) -> None:
        """Give smaller batches for a while: one of this cost did not fit into memory."""
        self.budget.memory_was_short(cost)
        self.dispatcher.scheduler.budget = self.budget.now

    def size(self, entries: Sequence[Entry]) -> tuple[float, float]:
        """Return tokens and attention area of a batch, times the share of the layers that it runs through.

        The area is what the backend prices a batch at beyond its tokens.
        """
        scheduler, layer_share = self.dispatcher.scheduler, entries[0].options.layer_share
        if len(entries) == 1:
            tokens = entries[0].item.tokens
            return tokens * layer_share, (scheduler.cost_alone(tokens) - tokens) * layer_share
        lengths = [entry.item.tokens for entry in entries]
        tokens = sum(lengths)
        area = scheduler.cost(np.array(lengths, np.int64)) - tokens
        return tokens * layer_share, area * layer_share
