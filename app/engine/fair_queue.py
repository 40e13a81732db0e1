"""One class's queue, fair between keys in tokens: pure, no thread, no clock of its own.

Each entry gets a virtual finish tag on arrival: the later of the queue's virtual time and its key's last tag,
plus its tokens. Entries leave in order of tags, so keys that compete get equal tokens, a key's own entries keep
their order, and an entry's place never gets worse by later arrivals of its own key.

Source: start-time fair queuing (Goyal, Vin, Cheng: SIGCOMM 1996), with equal weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from sortedcontainers import SortedDict

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
    """Entries in order of their virtual finish tags."""

    def __init__(self) -> None:
        self._entries: SortedDict[Place, Entry] = SortedDict()
        self._last_tags: dict[str, float] = {}
        self._virtual_tokens = 0.0
        self._next_number = 0
        self.tokens = 0

    def __len__(self) -> int:
        """How many entries wait."""
        return len(self._entries)

    def add(self, entry: Entry) -> Place:
        """Queue an entry; gives its place, by which it can be removed."""
        key = entry.item.key_id
        start = max(self._virtual_tokens, self._last_tags.get(key, 0.0))
        tag = start + entry.item.tokens
        self._last_tags[key] = tag
        place = (tag, self._next_number)
        self._next_number += 1
        self._entries[place] = entry
        self.tokens += entry.item.tokens
        return place

    def window(self, count: int) -> Iterator[tuple[Place, Entry]]:
        """The next entries in order, `count` at most; the queue must not change meanwhile."""
        return islice(self._entries.items(), count)

    def head(self) -> Entry:
        """The next entry; the queue must not be empty."""
        entry: Entry = self._entries.peekitem(0)[1]
        return entry

    def take(self, place: Place) -> Entry:
        """Remove an entry to run it: virtual time moves on to where it started."""
        started_at = place[0] - self._entries[place].item.tokens
        self._virtual_tokens = max(self._virtual_tokens, started_at)
        return self.remove(place)

    def remove(self, place: Place) -> Entry:
        """Remove an entry that will not run."""
        entry: Entry = self._entries.pop(place)
        self.tokens -= entry.item.tokens
        if not self._entries:
            # An empty queue forgets: no key carries a debt into an idle time.
            self._last_tags.clear()
            self._virtual_tokens = 0.0
        return entry
