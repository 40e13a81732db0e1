"""Which items run next: pure, no thread, no clock of its own.

There are two classes: interactive goes first, bulk is guaranteed a share of the tokens while both wait, and a larger
one once its head has waited long. Within a class keys share fairly (`fair_queue`). The head of the chosen class always
leaves with the next batch, so nothing starves; it is joined by the items of its class nearest to it in length, inside a
look-ahead window, until the batch's cost reaches the budget. Similar lengths keep the padded view around attention
small. The queue never waits for company: if work waits, a batch is given.
"""

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


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Entries of one class that run together, and the entries that were found expired on the way.

    Attributes:
        entries: What runs.
        expired: What was found expired.
        priority: Class of the entries.
        tokens: Number of the entries' tokens.
    """

    entries: tuple[Entry, ...] = ()
    expired: tuple[Entry, ...] = ()
    priority: Priority = Priority.INTERACTIVE
    tokens: int = 0


class Passing(NamedTuple):
    """What may come later and run first, as shares of all that the workers can do.

    Attributes:
        other_keys: What other keys of the same class send.
        other_class: What comes in the other class.
        token_s: Seconds that a token takes, all workers together, by which bulk's head ages; 0 where unknown.
    """

    other_keys: float = 0.0
    other_class: float = 0.0
    token_s: float = 0.0


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
    """

    cost: CostFunction
    budget: float
    lookahead_items: int
    ageing_s: float = AGEING_S
    _queues: dict[Priority, FairQueue] = field(
        default_factory=lambda: {priority: FairQueue() for priority in Priority}
    )
    _calls: dict[int, set[tuple[Priority, Ticket]]] = field(default_factory=dict)
    _bulk_owed_tokens: float = 0.0

    @property
    def waiting_items(self) -> int:
        """Number of items in the queue."""
        return sum(len(queue) for queue in self._queues.values())

    @property
    def waiting_tokens(self) -> int:
        """Number of tokens in the queue."""
        return sum(queue.tokens for queue in self._queues.values())

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
        ticket = self._queues[priority].add(entry)
        self._calls.setdefault(entry.call_id, set()).add((priority, ticket))

    def tokens_before(
        self,
        priority: Priority,
        key_id: str,
        tokens: int,
        passing: Passing = NOTHING_PASSES,
        now_s: float = 0.0,
    ) -> float:
        """Return about how many tokens would run until `tokens` more of a key have run, those included.

        Keys share a class fairly, and bulk has its share while both classes wait. What comes later counts as far as it
        may pass: other keys up to their fair share, the other class up to its own.

        Args:
            priority: The class.
            key_id: The key.
            tokens: How many tokens more.
            passing: What comes later and may run first.
            now_s: Monotonic time, which tells whether bulk has waited long.
        """
        queue, in_other = self._queues[priority], self._queues[OTHER[priority]].tokens
        in_class, at_most = queue.tokens_before(key_id, tokens)
        of_keys, of_class, token_s = passing
        if not in_other and not of_class:
            return min(in_class / _left(of_keys), at_most)
        at_most = min(at_most, in_class / _left(of_keys))
        if priority is Priority.BULK:
            at_least_its_share = at_most / BULK_SHARE
        else:
            at_least_its_share = self._beside_bulk(at_most, now_s, token_s)
        return min(
            (in_class + in_other) / _left(of_class + of_keys),
            (at_most + in_other) / _left(of_class),
            at_least_its_share,
        )

    def _beside_bulk(self, tokens: float, now_s: float, token_s: float) -> float:
        """Return how many tokens run until so many interactive ones have run, if bulk always waits and ages."""
        bulk = self._queues[Priority.BULK]
        age_s = now_s - bulk.head()[1].arrived_s if bulk else 0.0
        if not token_s:
            return tokens / (1 - (AGED_BULK_SHARE if age_s >= self.ageing_s else BULK_SHARE))
        young = max(0.0, self.ageing_s - age_s) / token_s
        of_young = young * (1 - BULK_SHARE)
        if tokens <= of_young:
            return tokens / (1 - BULK_SHARE)
        return young + (tokens - of_young) / (1 - AGED_BULK_SHARE)

    def drop(self, call_id: int) -> tuple[Entry, ...]:
        """Remove what still waits of a call and return it."""
        return tuple(
            self._queues[priority].remove(ticket)
            for priority, ticket in self._calls.pop(call_id, set())
        )

    def next_batch(
        self, now_s: float, *, only: Priority | None = None, idle_workers: int = 1
    ) -> MicroBatch:
        """Take the next micro-batch out of the queue.

        Args:
            now_s: Monotonic time; entries whose deadline has passed are set aside as expired.
            only: Serve this class and no other.
            idle_workers: Workers without a batch, the asking one included: they share what waits, so that
                a lone request of several inputs uses every core.

        Returns:
            At least one entry if any unexpired one waits (of the class, where one is given).
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
        nearest = queue.near_head(self.lookahead_items, FAIR_BATCHES * self.budget)
        tickets, tokens = self._fitting(nearest, budget, is_busy=idle_workers == 1)
        self._settle(priority, tokens, now_s)
        return MicroBatch(
            tuple(self._take(priority, ticket) for ticket in tickets), expired, priority, tokens
        )

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
        interactive, bulk = (self._queues[p] for p in (Priority.INTERACTIVE, Priority.BULK))
        if interactive and bulk:
            is_due = self._bulk_owed_tokens >= min(self.budget, bulk.tokens)
            return Priority.BULK if is_due else Priority.INTERACTIVE
        return Priority.BULK if bulk else Priority.INTERACTIVE

    def _settle(self, priority: Priority, tokens: int, now_s: float) -> None:
        """Book a batch: while both classes wait bulk earns its share of every token; its batches spend it."""
        interactive, bulk = (self._queues[p] for p in (Priority.INTERACTIVE, Priority.BULK))
        if not (interactive and bulk):
            self._bulk_owed_tokens = 0.0  # nothing was withheld
            return
        is_aged = self._is_bulk_aged(now_s)
        self._bulk_owed_tokens += (AGED_BULK_SHARE if is_aged else BULK_SHARE) * tokens
        if priority is Priority.BULK:
            self._bulk_owed_tokens -= tokens

    def _is_bulk_aged(self, now_s: float) -> bool:
        """Return whether bulk's head has waited long."""
        bulk = self._queues[Priority.BULK]
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
