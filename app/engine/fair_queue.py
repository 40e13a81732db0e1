"""One class's queue, fair between keys in tokens: pure, no thread, no clock of its own.

Each entry gets a virtual finish tag on arrival: the later of the queue's virtual time and its key's last tag,
plus its tokens (as many as it runs through layers). Entries leave in order of tags, so keys that compete get equal
tokens, a key's own entries keep their order, and an entry's place never gets worse by later arrivals of its own key.

Source: start-time fair queuing (Goyal, Vin, Cheng: SIGCOMM 1996), with equal weights.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from sortedcontainers import SortedDict, SortedList

from app.engine.types import Item

Place = tuple[float, int]  # virtual finish tag, sequence number


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
        start = max(self._virtual_tokens, self._last_tags.get(key, 0.0))
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

    def near_head(self, count: int) -> Iterator[tuple[Place, Entry]]:
        """Those of the next `count` entries that can join the head, most like it in length first, earlier ones first.

        The head itself comes first. The queue must not change meanwhile.
        """
        places = self._entries.keys()
        last: Place = places[min(count, len(places)) - 1]
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
        """Remove an entry to run it: virtual time moves on to where it started."""
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
