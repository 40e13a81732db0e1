"""Which items run next: pure, no thread, no clock of its own.

There are two classes: interactive goes first, bulk is guaranteed a share of the tokens while both wait, and a larger
one once its head has waited long. Within a class keys share fairly (`fair_queue`). The head of the chosen class always
leaves with the next batch, so nothing starves; it is joined by the items of its class nearest to it in length, inside a
look-ahead window, until the batch's cost reaches the budget. Similar lengths keep the padded view around attention
small, and long items share a batch with items of their own length only, where the backend wants that. The queue never
waits for company: if work waits, a batch is given.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.core.batching.fair_queue import Entry, FairQueue, Ticket
from nestvec.engine.types import Priority, Submission

CostFunction = Callable[[NDArray[np.int64]], float]

# Rows of one length run 3-4% faster; a batch smaller by this much loses less than that.
ALIKE_SHARE: Final = 0.7
# Where several keys wait, so many batches of each are searched for inputs as long as the head.
FAIR_BATCHES: Final = 4
# Share of the tokens that bulk gets while interactive work waits too, and once its head has aged.
BULK_SHARE: Final = 0.2
AGED_BULK_SHARE: Final = 0.5
AGEING_S: Final = 10.0
OTHER: Final = {Priority.INTERACTIVE: Priority.BULK, Priority.BULK: Priority.INTERACTIVE}
# Measured on 2 cores (Zen 4): a batch of 24 tokens costs a fifth more per token than one of 500, so splitting
# below this gains little even where cores are idle.
MIN_SPLIT_TOKENS: Final = 32
LONGEST_TOKENS: Final = 2**20  # no model takes an input of more tokens
# An item is long where it costs so many times what a short one may: less is the grain of any interactive load.
LONG_TIMES: Final = 4.0


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Entries of one class that run together, and the entries that were found expired on the way.

    Attributes:
        entries: What runs.
        expired: What was found expired.
        priority: Class of the entries.
        tokens: Number of the entries' tokens.
        cost: What the entries cost, each alone, in token equivalents.
    """

    entries: tuple[Entry, ...] = ()
    expired: tuple[Entry, ...] = ()
    priority: Priority = Priority.INTERACTIVE
    tokens: int = 0
    cost: float = 0.0


class Passing(NamedTuple):
    """What may come later and run first, as shares of all that the workers can do.

    Attributes:
        other_keys: What other keys of the same class send.
        other_class: What comes in the other class.
        cost_s: Seconds that a token equivalent takes, all workers together, by which bulk's head ages; 0 where unknown.
    """

    other_keys: float = 0.0
    other_class: float = 0.0
    cost_s: float = 0.0


NOTHING_PASSES: Final = Passing()
# However much comes, a forecast takes no more than this of the workers to be spoken for.
MAX_PASSING: Final = 0.95


@dataclass(slots=True)
class Scheduler:
    """A queue that gives micro-batches.

    Attributes:
        cost: Price of a batch from its lengths, as the backend declares it.
        budget: Highest cost of a batch; an item that costs more runs alone.
        lookahead_items: How many of the next items of a class may be reordered by length.
        ageing_s: After so long bulk's head has waited long.
        max_mixed_tokens: Longer items share a batch with items of exactly their own length only.
        max_short_cost: Items that cost no more than this alone, in token equivalents, are short; long are those that
            cost several times as much.
    """

    cost: CostFunction
    budget: float
    lookahead_items: int
    ageing_s: float = AGEING_S
    max_mixed_tokens: float = math.inf
    max_short_cost: float = math.inf
    _queues: dict[Priority, FairQueue] = field(init=False)
    _interactive: FairQueue = field(init=False)  # what waits is asked for many times a batch
    _bulk: FairQueue = field(init=False)
    _calls: dict[int, set[tuple[Priority, Ticket]]] = field(default_factory=dict)
    _bulk_owed_tokens: float = 0.0
    _costs_alone: dict[int, float] = field(default_factory=dict)  # by number of tokens
    _limits: tuple[float, float, float] = (math.inf, math.inf, math.inf)

    def __post_init__(self) -> None:
        """Make a queue for each class."""
        self._interactive, self._bulk = FairQueue(self.cost_alone), FairQueue(self.cost_alone)
        self._queues = {Priority.INTERACTIVE: self._interactive, Priority.BULK: self._bulk}

    @property
    def waiting_items(self) -> int:
        """Number of items in the queue."""
        return len(self._interactive) + len(self._bulk)

    @property
    def waiting_tokens(self) -> int:
        """Number of tokens in the queue."""
        return self._interactive.tokens + self._bulk.tokens

    @property
    def waiting_cost(self) -> float:
        """What the items in the queue cost, each alone, in token equivalents."""
        return self._interactive.cost + self._bulk.cost

    def cost_alone(self, tokens: int) -> float:
        """Return the price of an item of so many tokens, alone, in token equivalents."""
        cost = self._costs_alone.get(tokens)
        if cost is None:
            cost = self._costs_alone[tokens] = self.cost(np.array([tokens], np.int64))
        return cost

    @property
    def long_cost(self) -> float:
        """Items and batches that cost more than this, in token equivalents, are long."""
        return LONG_TIMES * self.max_short_cost

    @property
    def passing_tokens(self) -> tuple[float, float]:
        """Most tokens of a short item, and most tokens of an item that is not long."""
        cost, short_tokens, tokens = self._limits
        if cost != self.max_short_cost:
            lengths = range(1, LONGEST_TOKENS)
            short_tokens = bisect_right(lengths, self.max_short_cost, key=self.cost_alone)
            tokens = bisect_right(lengths, self.long_cost, key=self.cost_alone)
            self._limits = self.max_short_cost, short_tokens, tokens
        return short_tokens, tokens

    def shortest_tokens(self, priority: Priority) -> float:
        """Return the number of tokens of a class's shortest item in the queue; infinite where none waits."""
        return self._queues[priority].shortest_tokens()

    def oldest_s(self, priority: Priority) -> float | None:
        """Return when the item of a class came that has waited longest; None where none waits."""
        return self._queues[priority].oldest_s

    def waiting_long(self, priority: Priority) -> int:
        """Return the number of a class's long items in the queue."""
        return self._queues[priority].waiting_long

    def tokens_of(self, key_id: str) -> int:
        """Return a key's tokens in the queue."""
        return sum(queue.tokens_of(key_id) for queue in self._queues.values())

    def waiting_of(self, priority: Priority) -> int:
        """Return the number of a class's items in the queue."""
        return len(self._queues[priority])

    def add(self, call_id: int, submission: Submission, now_s: float) -> None:
        """Queue the items of a call."""
        options = submission.options
        for position, item in enumerate(submission.items):
            self.add_entry(Entry(item, options, call_id, position, now_s))

    def add_entry(self, entry: Entry) -> None:
        """Queue one item of a call."""
        priority = entry.options.priority
        ticket = self._queues[priority].add(entry, self.long_cost)
        self._calls.setdefault(entry.call_id, set()).add((priority, ticket))

    def cost_before(
        self,
        priority: Priority,
        key_id: str,
        cost: float,
        passing: Passing = NOTHING_PASSES,
        now_s: float = 0.0,
        *,
        passes_long: bool = False,
    ) -> float:
        """Return about the cost of what would run until work of a key of this cost has run too, that included.

        Keys share a class fairly, and bulk has its share while both classes wait. What comes later counts as far as it
        may pass: other keys up to their fair share, the other class up to its own.

        Args:
            priority: The class.
            key_id: The key.
            cost: What comes to the key, in token equivalents.
            passing: What comes later and may run first.
            now_s: Monotonic time, which tells whether bulk has waited long.
            passes_long: Whether it passes the long items of its class that wait.
        """
        queue, in_other = self._queues[priority], self._queues[OTHER[priority]].cost
        in_class, at_most = queue.cost_before(key_id, cost, passes_long=passes_long)
        of_keys, of_class, cost_s = passing
        if not in_other and not of_class:
            return min(in_class / _left(of_keys), at_most)
        at_most = min(at_most, in_class / _left(of_keys))
        if priority is Priority.BULK:
            at_least_its_share = at_most / BULK_SHARE
        else:
            at_least_its_share = self._beside_bulk(at_most, now_s, cost_s)
        return min(
            (in_class + in_other) / _left(of_class + of_keys),
            (at_most + in_other) / _left(of_class),
            at_least_its_share,
        )

    def _beside_bulk(self, cost: float, now_s: float, cost_s: float) -> float:
        """Return the cost of what runs until so much of interactive has run, if bulk always waits and ages."""
        bulk = self._bulk
        age_s = now_s - bulk.head()[1].arrived_s if bulk else 0.0
        if not cost_s:
            return cost / (1 - (AGED_BULK_SHARE if age_s >= self.ageing_s else BULK_SHARE))
        young = max(0.0, self.ageing_s - age_s) / cost_s
        of_young = young * (1 - BULK_SHARE)
        if cost <= of_young:
            return cost / (1 - BULK_SHARE)
        return young + (cost - of_young) / (1 - AGED_BULK_SHARE)

    def drop(self, call_id: int) -> tuple[Entry, ...]:
        """Remove what still waits of a call and return it."""
        return tuple(
            self._queues[priority].remove(ticket)
            for priority, ticket in self._calls.pop(call_id, set())
        )

    def next_batch(
        self,
        now_s: float,
        *,
        only: Priority | None = None,
        max_tokens: float = math.inf,
        idle_workers: int = 1,
    ) -> MicroBatch:
        """Take the next micro-batch out of the queue.

        Args:
            now_s: Monotonic time; entries whose deadline has passed are set aside as expired.
            only: Serve this class and no other.
            max_tokens: Pass over longer items.
            idle_workers: Workers without a batch, the asking one included: they share what waits, so that
                a lone request of several inputs uses every core.

        Returns:
            At least one entry if any unexpired one waits (of the class and within the length, where they are given).
        """
        expired = tuple(
            entry
            for priority in ([only] if only else Priority)
            for entry in self._take_expired(priority, now_s)
        )
        priority = only or self._choose()
        queue = self._queues[priority]
        if not queue:
            return MicroBatch((), expired, priority)
        fair_part = max(MIN_SPLIT_TOKENS, queue.tokens / idle_workers)
        budget = self.budget if idle_workers == 1 else min(self.budget, fair_part)
        nearest = queue.near_head(
            self.lookahead_items,
            FAIR_BATCHES * self.budget,
            max_tokens=max_tokens,
            max_mixed_tokens=self.max_mixed_tokens,
        )
        tickets, tokens = self._fitting(nearest, budget, is_busy=idle_workers == 1)
        self._settle(priority, tokens, now_s)
        waiting_cost = queue.cost
        entries = tuple(self._take(priority, ticket) for ticket in tickets)
        return MicroBatch(entries, expired, priority, tokens, waiting_cost - queue.cost)

    def _fitting(
        self, candidates: Iterator[tuple[Ticket, Entry]], budget: float, *, is_busy: bool
    ) -> tuple[list[Ticket], int]:
        """Return the longest prefix within the budget, and its tokens; the first entry goes whatever it costs.

        Cost grows with every item: candidates are drawn in doubling steps until they pass the budget, then the
        prefix is found by bisection, so that a deep queue costs no more than a batch.
        """
        tickets: list[Ticket] = []
        drawn_lengths: list[int] = []
        lengths = np.empty(0, np.int64)
        step = 2
        while drawn := list(islice(candidates, step)):
            tickets += [ticket for ticket, _ in drawn]
            drawn_lengths += [entry.item.tokens for _, entry in drawn]
            lengths = np.array(drawn_lengths, np.int64)
            if self.cost(lengths) > budget:
                break
            step = len(drawn_lengths)
        if not tickets:
            return [], 0
        more = bisect_right(
            range(2, len(tickets) + 1), budget, key=lambda count: self.cost(lengths[:count])
        )
        chosen = lengths[: 1 + more]
        # Candidates of the head's own length come first; where they nearly fill the budget they go alone, since
        # rows of one length need no mask and no padded view. Not where workers idle: they wait for the others.
        alike = chosen[chosen == chosen[0]]
        if is_busy and self.cost(alike) >= ALIKE_SHARE * budget:
            chosen = alike
        return tickets[: len(chosen)], int(chosen.sum())

    def _choose(self) -> Priority:
        """Choose interactive first, unless bulk is owed a batch."""
        interactive, bulk = self._interactive, self._bulk
        if interactive and bulk:
            is_due = self._bulk_owed_tokens >= min(self.budget, bulk.tokens)
            return Priority.BULK if is_due else Priority.INTERACTIVE
        return Priority.BULK if bulk else Priority.INTERACTIVE

    def _settle(self, priority: Priority, tokens: int, now_s: float) -> None:
        """Book a batch: while both classes wait bulk earns its share of every token; its batches spend it."""
        interactive, bulk = self._interactive, self._bulk
        if not (interactive and bulk):
            self._bulk_owed_tokens = 0.0  # nothing was withheld
            return
        is_aged = self._is_bulk_aged(now_s)
        self._bulk_owed_tokens += (AGED_BULK_SHARE if is_aged else BULK_SHARE) * tokens
        if priority is Priority.BULK:
            self._bulk_owed_tokens -= tokens

    def _is_bulk_aged(self, now_s: float) -> bool:
        """Return whether bulk's head has waited long."""
        bulk = self._bulk
        return bool(bulk) and now_s - bulk.head()[1].arrived_s >= self.ageing_s

    def _take_expired(self, priority: Priority, now_s: float) -> list[Entry]:
        """Remove the entries whose deadline has passed."""
        late = self._queues[priority].expired(now_s)
        return [self._take(priority, ticket) for ticket in late]

    def _take(self, priority: Priority, ticket: Ticket) -> Entry:
        entry = self._queues[priority].take(ticket)
        waiting = self._calls[entry.call_id]
        waiting.discard((priority, ticket))
        if not waiting:
            del self._calls[entry.call_id]
        return entry


def _left(passing: float) -> float:
    """Return the share of the workers that is left beside what comes later and runs first."""
    return 1 - min(MAX_PASSING, passing)
