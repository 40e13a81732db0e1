"""One class's queue, fair between keys in tokens: pure, no thread, no clock of its own.

Each entry gets a virtual finish tag on arrival: the later of the queue's virtual time and its key's last tag, plus its
tokens (as many as it runs through layers). Entries leave about in order of tags, so keys that compete get equal tokens,
a key's own entries keep their order, and an entry's place never gets worse by later arrivals of its own key. A key that
had nothing to ask for a moment may catch up on what it missed then, within bounds.

Source: start-time fair queuing (Goyal, Vin, Cheng: SIGCOMM 1996), with equal weights.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sortedcontainers import SortedDict, SortedList

from nestvec.engine.types import Item

Place = tuple[float, float]  # virtual finish tag, sequence number
# A caller that sends its next request only when the last one was answered leaves the queue for a moment each time; what
# others got meanwhile it may have back, up to so many tokens. More would let a key save up for a flood.
MOST_CREDIT_TOKENS: Final = 4096.0


@dataclass(frozen=True, slots=True)
class Entry:
    """An item in the queue.

    Attributes:
        call_id: Which call it belongs to; calls are dropped whole.
        position: Where its result goes within the call.
        arrived_s: Monotonic arrival time.
    """

    item: Item
    call_id: int
    position: int
    arrived_s: float


class FairQueue:
    """Entries in order of their virtual finish tags, and by exits and length within it."""

    def __init__(self) -> None:
        self._entries: SortedDict[Place, Entry] = SortedDict()
        # Entries of other exits cannot share a batch.
        self._by_exits: dict[tuple[int, ...], SortedDict[int, SortedList[Place]]] = {}
        self._earliest_deadline_s = math.inf  # no entry's is before it
        self._last_tags: dict[str, float] = {}
        self._virtual_tokens = 0.0
        self._next_number = 0
        self._tokens_of: dict[str, int] = {}
        self.tokens = 0

    def __len__(self) -> int:
        """How many entries wait."""
        return len(self._entries)

    def add(self, entry: Entry) -> Place:
        """Queue an entry; gives its place, by which it can be removed."""
        key = entry.item.key_id
        last = self._last_tags.get(key, self._virtual_tokens)
        start = max(self._virtual_tokens - MOST_CREDIT_TOKENS, last)
        tag = start + entry.item.tokens * entry.item.depth
        self._last_tags[key] = tag
        place = (tag, self._next_number)
        self._next_number += 1
        self._entries[place] = entry
        by_length = self._by_exits.get(entry.item.exits)
        if by_length is None:
            self._by_exits[entry.item.exits] = by_length = SortedDict()
        alike = by_length.get(entry.item.tokens)
        if alike is None:  # made only then: making one costs more than adding to it
            by_length[entry.item.tokens] = alike = SortedList()
        alike.add(place)
        self.tokens += entry.item.tokens
        self._tokens_of[key] = self._tokens_of.get(key, 0) + entry.item.tokens
        if entry.item.deadline_s is not None:
            self._earliest_deadline_s = min(self._earliest_deadline_s, entry.item.deadline_s)
        return place

    def tokens_of(self, key_id: str) -> int:
        """Tokens of a key in the queue."""
        return self._tokens_of.get(key_id, 0)

    def tokens_before(self, key_id: str, tokens: int) -> float:
        """Tokens that leave until so many more of a key have left, those included: others get as much as it at most."""
        own = self.tokens_of(key_id) + tokens
        others = (min(own, held) for key, held in self._tokens_of.items() if key != key_id)
        return float(own + sum(others))

    def head(self) -> tuple[Place, Entry]:
        """The next entry; the queue must not be empty."""
        found: tuple[Place, Entry] = self._entries.peekitem(0)
        return found

    def near_head(self, count: int, fair_tokens: float) -> Iterator[tuple[Place, Entry]]:
        """Those of the next `count` entries that can join the head, most like it in length first, earlier ones first.

        The head itself comes first. The queue must not change meanwhile.

        Args:
            count: How far to look.
            fair_tokens: How far to look in tokens of each key, where several keys wait: entries beyond would go
                before those of others whose turn it is.
        """
        places = self._entries.keys()
        last: Place = places[min(count, len(places)) - 1]
        if len(self._tokens_of) > 1:
            last = min(last, (places[0][0] + fair_tokens, math.inf))
        head = self.head()[1].item
        by_length, anchor = self._by_exits[head.exits], head.tokens
        lengths = by_length.keys()
        above = by_length.bisect_left(anchor)
        below = above - 1
        while below >= 0 or above < len(lengths):
            is_above = above < len(lengths) and (
                below < 0 or lengths[above] - anchor <= anchor - lengths[below]
            )
            length = lengths[above if is_above else below]
            for place in by_length[length]:
                if place > last:
                    break
                yield place, self._entries[place]
            if is_above:
                above += 1
            else:
                below -= 1

    def expired(self, now_s: float) -> list[Place]:
        """Places of entries whose deadline has passed."""
        if now_s < self._earliest_deadline_s:
            return []
        late, earliest_s = [], math.inf
        for place, entry in self._entries.items():
            deadline_s = entry.item.deadline_s
            if deadline_s is not None and deadline_s <= now_s:
                late.append(place)
            elif deadline_s is not None:
                earliest_s = min(earliest_s, deadline_s)
        self._earliest_deadline_s = earliest_s
        return late

    def take(self, place: Place) -> Entry:
        """Remove an entry to run it; if it was the next one, virtual time moves on to where it started.

        Those that go before their turn, being like the next in length, do not move it: whoever comes then would stand
        behind all that was passed over.
        """
        if self._entries.keys()[0] == place:
            item = self._entries[place].item
            started_at = place[0] - item.tokens * item.depth
            self._virtual_tokens = max(self._virtual_tokens, started_at)
        return self.remove(place)

    def remove(self, place: Place) -> Entry:
        """Remove an entry that will not run."""
        entry: Entry = self._entries.pop(place)
        by_length = self._by_exits[entry.item.exits]
        alike = by_length[entry.item.tokens]
        alike.remove(place)
        if not alike:
            del by_length[entry.item.tokens]
        self.tokens -= entry.item.tokens
        key = entry.item.key_id
        left = self._tokens_of[key] - entry.item.tokens
        if left:
            self._tokens_of[key] = left
        else:
            del self._tokens_of[key]
        if not self._entries:
            # An empty queue forgets: no key carries a debt into an idle time.
            self._last_tags.clear()
            self._virtual_tokens = 0.0
            self._earliest_deadline_s = math.inf
        return entry
