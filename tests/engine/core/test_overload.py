"""Ten times too much, in simulated time: what is admitted is answered, nobody waits too long, no worker ever idles."""

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pytest
from nestvec.engine.core.batch_runner import BatchOutput
from nestvec.engine.core.batching.dispatcher import Assignment
from nestvec.engine.core.engine_core import CoreOptions, EngineCore
from nestvec.engine.types import Item, ItemOptions, Priority, Submission
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import QueueFullError

from tests.support.fakes import FakeBackend, FakeClock, RecordingObserver

WORKERS: Final = 2
TOKEN_S: Final = 1e-3  # worker seconds
FIXED_S: Final = 0.01  # of each batch
MAX_WAIT_S: Final = 8.0
TIMEOUT_S: Final = 20.0
ITEM_TOKENS: Final = 40


@dataclass
class Traffic:
    """One kind of caller.

    Attributes:
        rate: Calls a second.
        items: Items of each call.
        key_id: Its key.
        priority: Its class.
        from_s: When it begins.
    """

    rate: float
    items: int
    key_id: str = ""
    priority: Priority = Priority.INTERACTIVE
    from_s: float = 0.0

    def arrivals(self, chooser: random.Random, until_s: float) -> Iterator[float]:
        """Times of calls, as a Poisson process."""
        at_s = self.from_s + chooser.expovariate(self.rate)
        while at_s < until_s:
            yield at_s
            at_s += chooser.expovariate(self.rate)


@dataclass
class Outcome:
    """What became of the calls of a simulation.

    Attributes:
        took_s: Of each answered call, by class.
        late: Number of admitted calls that ran into their deadline.
        refused: Number of calls refused.
        retry_after_s: What they were told.
        busy_s: Worker seconds that batches took, the priority worker's not counted.
        tokens: Tokens answered.
    """

    took_s: dict[Priority, list[float]] = field(default_factory=lambda: {p: [] for p in Priority})
    late: int = 0
    refused: int = 0
    retry_after_s: list[float] = field(default_factory=list)
    busy_s: float = 0.0
    tokens: int = 0

    @property
    def admitted(self) -> int:
        """Number of admitted calls."""
        return self.late + sum(map(len, self.took_s.values()))

    def p99_s(self, priority: Priority) -> float:
        """99th percentile of the time of answered calls."""
        return float(np.percentile(self.took_s[priority], 99))


class Simulation:
    """A core's queue in simulated time: workers are events, batches take what `slowness` says.

    Args:
        seed: Of arrivals and of how long batches take.
        first_slowness: How many times as long everything takes as the first estimate says.
    """

    def __init__(self, seed: int, first_slowness: float = 1.0) -> None:
        self.chooser = random.Random(seed)
        self.slowness = first_slowness
        self.clock = FakeClock(0.0)
        options = CoreOptions(
            workers=WORKERS,
            max_batch_tokens=256,
            lookahead_items=64,
            max_queue_tokens=500_000,
            max_queue_wait_s=MAX_WAIT_S,
            max_batch_s=60.0,
            pooler=Pooler("mean"),
            first_token_s=TOKEN_S,
        )
        self.observer = RecordingObserver()
        self.core = EngineCore("m", FakeBackend(), options, self.observer, self.clock)
        self.outcome = Outcome()
        self.events: list[tuple[float, int, object]] = []
        self.number = 0
        self.calls: dict[int, tuple[float, Priority, int]] = {}
        self.is_free = [True] * WORKERS
        self.is_priority_free = True

    def at(self, at_s: float, event: object) -> None:
        """Note an event to come."""
        self.number += 1
        heapq.heappush(self.events, (at_s, self.number, event))

    def run(self, traffic: list[Traffic], seconds: float) -> Outcome:
        """Let calls come for so long, and work off what is there then."""
        for kind in traffic:
            for at_s in kind.arrivals(self.chooser, seconds):
                self.at(at_s, kind)
        while self.events:
            self.clock.now_s, _, event = heapq.heappop(self.events)
            if isinstance(event, Traffic):
                self._arrive(event)
            elif isinstance(event, tuple):
                self._end(*event)
            self._begin()
        return self.outcome

    def _arrive(self, kind: Traffic) -> None:
        now_s = self.clock.now_s
        lengths = [
            self.chooser.randint(ITEM_TOKENS // 2, ITEM_TOKENS * 3 // 2) for _ in range(kind.items)
        ]
        items = tuple(Item(np.ones(n, np.int32), index) for index, n in enumerate(lengths))
        options = ItemOptions(kind.key_id, kind.priority, now_s + TIMEOUT_S)
        try:
            call = self.core.queue.add(Submission(options, items), [False] * len(items))
        except QueueFullError as error:
            self.outcome.refused += 1
            self.outcome.retry_after_s.append(error.retry_after_s)
        else:
            self.calls[call.call_id] = now_s, kind.priority, sum(lengths)

    def _begin(self) -> None:
        """Let free workers take batches."""
        dispatcher = self.core.queue.dispatcher
        for worker, is_free in enumerate(self.is_free):
            if is_free and dispatcher.has_work():
                self.is_free[worker] = False
                self._take(worker, is_priority=False)
        if self.is_priority_free and dispatcher.has_work(is_priority=True):
            self.is_priority_free = False
            self._take(-1, is_priority=True)

    def _take(self, worker: int, *, is_priority: bool) -> None:
        assignment = self.core.queue.take(is_priority=is_priority)
        assert assignment is not None
        for entry in assignment.batch.expired:
            if self.core.queue.forget(entry.call_id, "deadline") is not None:
                self.calls.pop(entry.call_id)
                self.outcome.late += 1
        entries = assignment.batch.entries
        took_s = 0.0
        if entries:
            tokens = sum(entry.item.tokens for entry in entries)
            noise = self.chooser.uniform(0.5, 1.5)
            # The priority worker takes its part of the same cores.
            crowding = max(1.0, self.core.queue.dispatcher.busy / WORKERS)
            took_s = (FIXED_S + tokens * TOKEN_S) * noise * self.slowness * crowding
            self.outcome.busy_s += 0.0 if is_priority else took_s
        self.at(self.clock.now_s + took_s, (worker, assignment, self.clock.now_s))

    def _end(self, worker: int, assignment: Assignment, began_s: float) -> None:
        entries = assignment.batch.entries
        if entries:
            self.core.queue.learn(entries, self.clock.now_s - began_s)
            rows = [np.ones((1, 8), np.float32)] * len(entries)
            output = BatchOutput(rows, np.zeros(len(entries), np.bool_))
            for call in self.core.queue.put(entries, output, began_s):
                arrived_s, priority, tokens = self.calls.pop(call.call_id)
                if self.clock.now_s - arrived_s > TIMEOUT_S:  # its caller has got a 504 meanwhile
                    self.outcome.late += 1
                    continue
                self.outcome.took_s[priority].append(self.clock.now_s - arrived_s)
                self.outcome.tokens += tokens
        self.core.queue.done(assignment)
        if worker < 0:
            self.is_priority_free = True
        else:
            self.is_free[worker] = True


PER_S: Final = WORKERS / (TOKEN_S + FIXED_S / 256)  # tokens a second, about
ONE_BATCH_S: Final = 1.5 * (FIXED_S + 256 * TOKEN_S)
QUERY_TOKENS: Final = 4 * ITEM_TOKENS
BULK_TOKENS: Final = 12 * ITEM_TOKENS


def queries(times: float, key_id: str = "", from_s: float = 0.0) -> Traffic:
    """So many times what the workers can do, in calls of four items."""
    return Traffic(times * PER_S / QUERY_TOKENS, 4, key_id, from_s=from_s)


def bulk(times: float, key_id: str = "") -> Traffic:
    """So many times what the workers can do, in bulk calls of twelve items."""
    return Traffic(times * PER_S / BULK_TOKENS, 12, key_id, Priority.BULK)


LOADS: Final = {
    "queries": [queries(10)],
    "bulk": [bulk(10)],
    "both": [queries(5), bulk(5)],
    "bulk, then a flood of queries": [bulk(3), queries(8, from_s=15.0)],
    "bulk beside a stream of queries that never queues": [bulk(9.4), queries(0.6)],
    "several keys": [queries(4, "a"), queries(4, "b"), bulk(1, "b"), bulk(1, "c")],
    "a key that sends little": [queries(9.9, "flood"), queries(0.1, "little")],
}


# Loads that change while bulk waits: what it was told was true when it came, and it is answered in any case.
CHANGING: Final = {("bulk, then a flood of queries", Priority.BULK)}


@pytest.mark.parametrize(
    ("load", "slowness"), [*((load, 1.0) for load in LOADS), ("queries", 0.7), ("both", 1.5)]
)
async def test_what_is_admitted_is_answered_in_time(load: str, slowness: float) -> None:
    """Whatever mixture comes, however wrong the first estimate: no worker idles, what is admitted is done in time."""
    simulation = Simulation(1, slowness)
    seconds = 50.0
    outcome = simulation.run(LOADS[load], seconds)
    assert outcome.refused > outcome.admitted
    assert outcome.late <= 0.01 * outcome.admitted
    # From the first call to the last answer: what waits at the end is worked off.
    assert outcome.busy_s >= 0.95 * WORKERS * simulation.clock.now_s
    for priority, took_s in outcome.took_s.items():
        if took_s and (load, priority) not in CHANGING:
            own_s = slowness * (BULK_TOKENS if priority is Priority.BULK else QUERY_TOKENS) / PER_S
            # What queries will leave to bulk can be foreseen within a tenth.
            longest_s = (1.1 if priority is Priority.BULK else 1.0) * MAX_WAIT_S
            assert outcome.p99_s(priority) <= longest_s + own_s + slowness * ONE_BATCH_S, priority
    assert max(outcome.retry_after_s) <= 1.25 * 5 * MAX_WAIT_S
