"""Ten times too much, in simulated time: what is admitted is answered, nobody waits too long, no worker ever idles."""

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pytest
from nestvec.engine.backend import AttentionKind, CostModel
from nestvec.engine.core.batch_runner import BatchOutput
from nestvec.engine.core.batching.batching_policy import BatchingOptions
from nestvec.engine.core.batching.dispatcher import Assignment
from nestvec.engine.core.engine_core import CoreOptions, EngineCore
from nestvec.engine.types import Item, ItemOptions, Layout, Priority, Submission
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import QueueFullError

from tests.support.fakes import FakeBackend, FakeClock, RecordingObserver

WORKERS: Final = 2
TOKEN_S: Final = 1e-3  # worker seconds
FIXED_S: Final = 0.01  # of each batch
MAX_WAIT_S: Final = 8.0
TIMEOUT_S: Final = 20.0
ITEM_TOKENS: Final = 40


TOKENS_ONLY: Final = CostModel(Layout.PACKED, 0.0)


class PricedBackend(FakeBackend):
    """A fake backend whose batches cost what they are said to.

    Args:
        cost: What a batch of some lengths costs.
    """

    def __init__(self, cost: CostModel) -> None:
        super().__init__()
        self._cost = cost


@dataclass
class Traffic:
    """One kind of caller.

    Attributes:
        rate: Calls a second.
        items: Items of each call.
        key_id: Its key.
        priority: Its class.
        from_s: When it begins.
        tokens: Fewest and most tokens of an item.
    """

    rate: float
    items: int
    key_id: str = ""
    priority: Priority = Priority.INTERACTIVE
    from_s: float = 0.0
    tokens: tuple[int, int] = (ITEM_TOKENS // 2, ITEM_TOKENS * 3 // 2)

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
        took_by_key_s: Of each answered call, by key.
        late: Number of admitted calls that ran into their deadline.
        refused: Number of calls refused.
        refused_keys: Number of calls refused, by key.
        retry_after_s: What they were told.
        busy_s: Worker seconds that batches took, the priority worker's not counted.
        tokens: Tokens answered.
    """

    took_s: dict[Priority, list[float]] = field(default_factory=lambda: {p: [] for p in Priority})
    took_by_key_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    late: int = 0
    refused: int = 0
    refused_keys: Counter[str] = field(default_factory=Counter)
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
        cost: What the backend says that batches cost.
        attention_slowness: How many times as long attention takes as the backend's costs say.
        timeout_s: After so long a caller gives up.
    """

    def __init__(
        self,
        seed: int,
        first_slowness: float = 1.0,
        *,
        cost: CostModel = TOKENS_ONLY,
        attention_slowness: float = 1.0,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.cost, self.attention_slowness, self.timeout_s = cost, attention_slowness, timeout_s
        self.chooser = random.Random(seed)
        self.slowness = first_slowness
        self.clock = FakeClock(0.0)
        batching = BatchingOptions(
            workers=WORKERS,
            max_batch_tokens=256,
            lookahead_items=64,
            max_queue_tokens=500_000,
            max_queue_wait_s=MAX_WAIT_S,
            max_batch_s=0.25,
            first_token_s=TOKEN_S,
        )
        options = CoreOptions(batching, Pooler("mean"))
        self.observer = RecordingObserver()
        self.core = EngineCore("m", PricedBackend(cost), options, self.observer, self.clock)
        self.outcome = Outcome()
        self.events: list[tuple[float, int, object]] = []
        self.number = 0
        self.calls: dict[int, tuple[float, Traffic, int]] = {}
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
        lengths = [self.chooser.randint(*kind.tokens) for _ in range(kind.items)]
        items = tuple(Item(np.ones(n, np.int32), index) for index, n in enumerate(lengths))
        options = ItemOptions(kind.key_id, kind.priority, now_s + self.timeout_s)
        try:
            call = self.core.queue.add(Submission(options, items), [False] * len(items))
        except QueueFullError as error:
            self.outcome.refused += 1
            self.outcome.refused_keys[kind.key_id] += 1
            self.outcome.retry_after_s.append(error.retry_after_s)
        else:
            self.calls[call.call_id] = now_s, kind, sum(lengths)

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
            lengths = np.array([entry.item.tokens for entry in entries])
            tokens = int(lengths.sum())
            work = tokens + self.attention_slowness * (self.cost(lengths) - tokens)
            noise = self.chooser.uniform(0.5, 1.5)
            # The priority worker takes its part of the same cores.
            crowding = max(1.0, self.core.queue.dispatcher.busy / WORKERS)
            took_s = (FIXED_S + work * TOKEN_S) * noise * self.slowness * crowding
            self.outcome.busy_s += 0.0 if is_priority else took_s
        self.at(self.clock.now_s + took_s, (worker, assignment, self.clock.now_s))

    def _end(self, worker: int, assignment: Assignment, began_s: float) -> None:
        entries = assignment.batch.entries
        if entries:
            self.core.queue.learn(entries, self.clock.now_s - began_s)
            rows = [np.ones((1, 8), np.float32)] * len(entries)
            output = BatchOutput(rows, np.zeros(len(entries), np.bool_))
            for call in self.core.queue.put(entries, output, began_s):
                arrived_s, kind, tokens = self.calls.pop(call.call_id)
                took_s = self.clock.now_s - arrived_s
                if took_s > self.timeout_s:  # its caller has got a 504 meanwhile
                    self.outcome.late += 1
                    continue
                self.outcome.took_s[kind.priority].append(took_s)
                self.outcome.took_by_key_s[kind.key_id].append(took_s)
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


WINDOWED: Final = CostModel.of_graph(
    Layout.PACKED, 768, (AttentionKind(8), AttentionKind(14, window=65))
)
LONG: Final = (6000, 8192)  # tokens; 9 to 15 s alone, at the prices above
QUERIES: Final = Traffic(3.0, 1, "query", tokens=(8, 40))
# A query takes 0.03 s alone, its batch at most a quarter of a second, and one batch may run before it; with three
# threads on two cores each takes half as long again.
QUERY_P99_S: Final = 4 * (FIXED_S + 40 * TOKEN_S)
LONG_LOADS: Final = {
    "bulk": [Traffic(0.1, 4, "long", Priority.BULK, 5.0, LONG)],
    "bulk from the first moment": [Traffic(0.1, 4, "long", Priority.BULK, tokens=LONG)],
    "interactive": [Traffic(0.1, 1, "long", from_s=5.0, tokens=LONG)],
    "several of a call": [Traffic(0.05, 4, "long", tokens=LONG)],
    "both, and paragraphs": [
        Traffic(0.03, 1, "long", tokens=LONG),
        Traffic(0.03, 4, "bulk", Priority.BULK, tokens=LONG),
        Traffic(0.5, 8, "bulk", Priority.BULK, tokens=(100, 180)),
    ],
}


@pytest.mark.parametrize("slowness", [1.0, 2.0])
@pytest.mark.parametrize("load", LONG_LOADS)
async def test_queries_beside_long_texts_are_admitted_and_hardly_wait(
    load: str, slowness: float
) -> None:
    """Long texts hold all workers for seconds, and no query is refused; the queries' 99th percentile stays small."""
    simulation = Simulation(1, cost=WINDOWED, attention_slowness=slowness, timeout_s=600.0)
    outcome = simulation.run([QUERIES, *LONG_LOADS[load]], 200.0)
    assert outcome.took_by_key_s["long"]
    assert min(outcome.took_by_key_s["long"]) > 5
    assert not outcome.refused_keys["query"]
    assert np.percentile(outcome.took_by_key_s["query"], 99) <= QUERY_P99_S
    assert not outcome.late


@pytest.mark.parametrize("slowness", [1.0, 2.0])
async def test_forecasts_hold_where_long_texts_come_among_a_flood(slowness: float) -> None:
    """Three times too many short calls, with long texts among them: nobody waits for much longer than was foreseen."""
    simulation = Simulation(1, cost=WINDOWED, attention_slowness=slowness)
    flood = Traffic(3 * PER_S / QUERY_TOKENS, 4, "flood")
    outcome = simulation.run([flood, Traffic(0.1, 1, "long", tokens=LONG)], 60.0)
    assert outcome.refused > outcome.admitted
    assert outcome.late <= 0.01 * outcome.admitted
    # A long text that gets its turn takes a worker for as long as it runs.
    longest_s = MAX_WAIT_S + QUERY_TOKENS / PER_S + ONE_BATCH_S
    assert np.percentile(outcome.took_by_key_s["flood"], 99) <= 1.2 * longest_s
    assert outcome.busy_s >= 0.9 * WORKERS * simulation.clock.now_s
