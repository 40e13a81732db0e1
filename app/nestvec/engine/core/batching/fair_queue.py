"""The queue of one scheduling class, fair between keys in tokens: pure, no thread, no clock of its own.

Each entry gets a virtual finish tag on arrival: the later of the queue's virtual time and its key's last tag, plus its
tokens (times the share of the layers that they run through). Entries leave about in order of tags, so keys that compete
get equal tokens, a key's own entries keep their order, and later arrivals of a key never push its entries back. A key
that had nothing to ask for a moment may catch up on what it missed then, within bounds.

Source: start-time fair queuing (Goyal, Vin, Cheng: SIGCOMM 1996), with equal weights.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from sortedcontainers import SortedDict, SortedList

from nestvec.engine.types import Item, ItemOptions

Ticket = tuple[float, float]  # virtual finish tag, sequence number
# A caller that sends its next request only when the last one was answered leaves the queue for a moment each time; what
# others got meanwhile it may have back, up to so many tokens. More would let a key save up for a flood.
MAX_CREDIT_TOKENS: Final = 4096.0


@dataclass(frozen=True, slots=True)
class Entry:
    """An item in the queue.

    Attributes:
        options: What it has in common with the other items of its call.
        call_id: The call that it belongs to; calls are dropped whole.
        position: Index of its result within the call.
        arrived_s: Monotonic arrival time.
    """

    item: Item
    options: ItemOptions
    call_id: int
    position: int
    arrived_s: float


class FairQueue:
    """Entries in order of their virtual finish tags, indexed by exits and length too.

    Args:
        cost_of: Price of an item alone, by its tokens, in token equivalents.
    """

    def __init__(self, cost_of: Callable[[int], float] = float) -> None:
        self._price = cost_of
        self._entries: SortedDict[Ticket, Entry] = SortedDict()
        # Entries with other exits cannot share a batch, nor texts and pictures.
        self._by_key: dict[tuple[int, ...], SortedDict[int, SortedList[Ticket]]] = {}
        self._earliest_deadline_s = math.inf  # no entry's deadline is before it
        self._last_tags: dict[str, float] = {}
        self._virtual_tokens = 0.0
        self._next_number = 0
        self._tokens_of: dict[str, int] = {}
        self._costs_of: dict[str, float] = {}
        self._long: dict[
            Ticket, float
        ] = {}  # what long entries cost, as they were told from others when they came
        self._long_costs_of: dict[str, float] = {}
        self.tokens = 0
        self.cost = 0.0

    def __len__(self) -> int:
        """Return the number of entries that wait."""
        return len(self._entries)

    def add(self, entry: Entry, long_cost: float = math.inf) -> Ticket:
        """Queue an entry and return its ticket, by which it can be removed.

        Args:
            entry: The entry.
            long_cost: Entries that cost more than this alone are long: others may pass them.
        """
        tokens, options = entry.item.tokens, entry.options
        key_id = options.key_id
        last_tag = self._last_tags.get(key_id, self._virtual_tokens)
        start = max(self._virtual_tokens - MAX_CREDIT_TOKENS, last_tag)
        tag = start + tokens * options.layer_share
        self._last_tags[key_id] = tag
        ticket = (tag, self._next_number)
        self._next_number += 1
        self._entries[ticket] = entry
        by_length = self._by_key.get(options.batch_key)
        if by_length is None:
            self._by_key[options.batch_key] = by_length = SortedDict()
        same_length = by_length.get(tokens)
        if same_length is None:  # made only then: making one costs more than adding to it
            by_length[tokens] = same_length = SortedList()
        same_length.add(ticket)
        price = self._price(tokens)
        cost = price * options.layer_share
        if price > long_cost:
            self._long[ticket] = cost
            self._long_costs_of[key_id] = self._long_costs_of.get(key_id, 0.0) + cost
        self.tokens += tokens
        self.cost += cost
        self._tokens_of[key_id] = self._tokens_of.get(key_id, 0) + tokens
        self._costs_of[key_id] = self._costs_of.get(key_id, 0.0) + cost
        if options.deadline_s is not None:
            self._earliest_deadline_s = min(self._earliest_deadline_s, options.deadline_s)
        return ticket

    @property
    def oldest_s(self) -> float | None:
        """When the entry came that has waited longest, monotonic; None where none waits.

        Entries join in the order of their arrival, and a sorted dictionary is a dictionary, which keeps that order.
        """
        ticket = next(dict.__iter__(self._entries), None)
        return None if ticket is None else self._entries[ticket].arrived_s

    @property
    def waiting_long(self) -> int:
        """Number of long entries that wait."""
        return len(self._long)

    def tokens_of(self, key_id: str) -> int:
        """Return a key's tokens in the queue."""
        return self._tokens_of.get(key_id, 0)

    def cost_before(
        self, key_id: str, cost: float, *, passes_long: bool = False
    ) -> tuple[float, float]:
        """Return the cost of what leaves until work of a key of this cost has left too, that included.

        Every other key gets about as much as this one meanwhile, at most.

        Args:
            key_id: The key.
            cost: What comes to the key, in token equivalents.
            passes_long: Whether it passes the long entries that wait.

        Returns:
            The cost if nothing else comes, and the cost however much comes of the keys that wait, of one at least.
        """
        held = self._costs_of
        if passes_long and self._long:
            long = self._long_costs_of
            held = {key: of_other - long.get(key, 0.0) for key, of_other in held.items()}
        of_key = held.get(key_id, 0.0) + cost
        others = len(held) - (key_id in held)
        if not others:
            return of_key, 2.0 * of_key
        of_others = sum(min(of_key, of_other) for key, of_other in held.items() if key != key_id)
        return of_key + of_others, of_key * (1 + others)

    def head(self) -> tuple[Ticket, Entry]:
        """Return the next entry and its ticket; the queue must not be empty."""
        head: tuple[Ticket, Entry] = self._entries.peekitem(0)
        return head

    def shortest_tokens(self) -> float:
        """Return the number of tokens of the shortest entry; infinite where none waits."""
        return min(
            (lengths.keys()[0] for lengths in self._by_key.values() if lengths), default=math.inf
        )

    def head_within(self, max_tokens: float) -> tuple[Ticket, Entry] | None:
        """Return the next entry of at most so many tokens and its ticket; None if there is none."""
        if not self._entries:
            return None
        head = self.head()
        if head[1].item.tokens <= max_tokens:
            return head
        ticket: Ticket | None = min(
            (
                by_length[length][0]
                for by_length in self._by_key.values()
                for length in by_length.irange(maximum=max_tokens)
            ),
            default=None,
        )
        return None if ticket is None else (ticket, self._entries[ticket])

    def near_head(
        self,
        count: int,
        fair_tokens: float,
        *,
        max_tokens: float = math.inf,
        max_mixed_tokens: float = math.inf,
    ) -> Iterator[tuple[Ticket, Entry]]:
        """Yield those of the next `count` entries that can join the head: nearest in length first, then earlier first.

        The head itself comes first. The queue must not change meanwhile.

        Args:
            count: How many entries to look at.
            fair_tokens: How many tokens of each key to look at, where several keys wait: entries beyond would go
                before those of others whose turn it is.
            max_tokens: Longer entries are passed over; the head is the next of those that are left.
            max_mixed_tokens: Longer entries are joined by those of exactly their own length only.
        """
        tickets, place = self._entries.keys(), 0
        first, head = self.head()
        if head.item.tokens > max_tokens:
            found = self.head_within(max_tokens)
            if found is None:
                return
            first, head = found
            place = self._entries.bisect_left(first)
        last: Ticket = tickets[min(place + count, len(tickets)) - 1]
        if len(self._tokens_of) > 1:
            last = min(last, (first[0] + fair_tokens, math.inf))
        by_length, anchor = self._by_key[head.options.batch_key], head.item.tokens
        lengths = by_length.keys()
        above = by_length.bisect_left(anchor)
        below, end = above - 1, len(lengths)
        if anchor > max_mixed_tokens:
            below, end = -1, above + 1
        elif lengths[-1] > (longest := min(max_tokens, max_mixed_tokens)):
            end = by_length.bisect_right(longest)
        while below >= 0 or above < end:
            is_above = above < end and (
                below < 0 or lengths[above] - anchor <= anchor - lengths[below]
            )
            length = lengths[above if is_above else below]
            for ticket in by_length[length]:
                if ticket > last:
                    break
                yield ticket, self._entries[ticket]
            if is_above:
                above += 1
            else:
                below -= 1

    def expired(self, now_s: float) -> list[Ticket]:
        """Return the tickets of entries whose deadline has passed."""
        if now_s < self._earliest_deadline_s:
            return []
        late, earliest_s = [], math.inf
        for ticket, entry in self._entries.items():
            deadline_s = entry.options.deadline_s
            if deadline_s is not None and deadline_s <= now_s:
                late.append(ticket)
            elif deadline_s is not None:
                earliest_s = min(earliest_s, deadline_s)
        self._earliest_deadline_s = earliest_s
        return late

    def take(self, ticket: Ticket) -> Entry:
        """Remove an entry to run it; if it was the next one, virtual time moves on to where it started.

        Entries that leave before their turn, being as long as the head, do not move it: whoever comes then would stand
        behind all that was passed over.
        """
        if self._entries.keys()[0] == ticket:
            entry = self._entries[ticket]
            started_at = ticket[0] - entry.item.tokens * entry.options.layer_share
            self._virtual_tokens = max(self._virtual_tokens, started_at)
        return self.remove(ticket)

    def remove(self, ticket: Ticket) -> Entry:
        """Remove an entry that will not run."""
        entry: Entry = self._entries.pop(ticket)
        tokens, key_id = entry.item.tokens, entry.options.key_id
        by_length = self._by_key[entry.options.batch_key]
        same_length = by_length[tokens]
        same_length.remove(ticket)
        if not same_length:
            del by_length[tokens]
        cost = self._price(tokens) * entry.options.layer_share
        if self._long and ticket in self._long:
            self._long_costs_of[key_id] -= self._long.pop(ticket)
            if not self._long:
                self._long_costs_of.clear()
        self.tokens -= tokens
        self.cost -= cost
        remaining = self._tokens_of[key_id] - tokens
        if remaining:
            self._tokens_of[key_id] = remaining
            self._costs_of[key_id] -= cost
        else:
            del self._tokens_of[key_id], self._costs_of[key_id]
        if not self._entries:
            self.cost = 0.0
            # An empty queue forgets: no key carries a debt into an idle time.
            self._last_tags.clear()
            self._virtual_tokens = 0.0
            self._earliest_deadline_s = math.inf
        return entry
