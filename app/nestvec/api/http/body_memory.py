"""Memory for the bodies of requests under way, shared among callers so that none can keep the others out.

The room that one caller may hold falls with the room that is left, as in the queue (Choudhury and Hahne, IEEE/ACM
Trans. Networking 1998). Of each request the first bytes are counted apart from the rest, and an eighth of the room is
for them alone: however many large bodies there are, small requests are read.
"""

from dataclasses import dataclass, field
from typing import Final

from nestvec.errors import QueueFullError

# Requests of a text or a few are no longer than this.
FIRST_BYTES: Final = 64 * 1024
# What is kept of the room for the first bytes of requests.
KEPT_SHARE: Final = 0.125
# What an input counts for beside its bytes: its tokens, its place in the queue, its vector and what is said of it.
INPUT_BYTES: Final = 2048
# Requests of so many inputs are not counted by them: most requests are.
FREE_INPUTS: Final = 16
# A caller may hold this many times the room that is left: alone four fifths of it, two of them four ninths each.
OWNER_SHARE: Final = 4.0


@dataclass(slots=True)
class HeldBytes:
    """What somebody holds of the memory.

    Attributes:
        first: First bytes of bodies.
        rest: Bytes of bodies behind the first ones, and of answers.
    """

    first: int = 0
    rest: int = 0


@dataclass(slots=True)
class BodyMemoryBudget:
    """Memory for the bodies of all requests under way, and for answers that nobody has read yet.

    Attributes:
        max_bytes: How much they may take together, decompressed.
    """

    max_bytes: int
    _held: HeldBytes = field(default_factory=HeldBytes)
    _of_owner: dict[str, HeldBytes] = field(default_factory=dict)

    @property
    def held_bytes(self) -> int:
        """How much is held now."""
        return self._held.first + self._held.rest

    def reserve(self, owner: str, count: int, request: HeldBytes) -> None:
        """Reserve memory for the next bytes of a request's body, and add them to what the request holds.

        Args:
            owner: Whose request it is.
            count: Number of bytes.
            request: What the request holds so far.

        Raises:
            QueueFullError: Too little is left for this caller.
        """
        of_owner = self._of_owner.get(owner)
        if of_owner is None:
            of_owner = self._of_owner[owner] = HeldBytes()
        first = min(count, max(0, FIRST_BYTES - request.first))
        rest = count - first
        try:
            if first:
                self._check_first(first, of_owner, request)
            if rest:
                self._check_rest(rest, of_owner, request)
        except QueueFullError:
            self._forget(owner, of_owner)
            raise
        for holder in (self._held, of_owner, request):
            holder.first += first
            holder.rest += rest

    def release(self, owner: str, request: HeldBytes) -> None:
        """Give back all that a request holds."""
        of_owner = self._of_owner[owner]
        for holder in (self._held, of_owner):
            holder.first -= request.first
            holder.rest -= request.rest
        request.first = request.rest = 0
        self._forget(owner, of_owner)

    def hold(self, count: int, owner: str = "") -> None:
        """Count bytes of an answer that waits for a slow reader; while there are many, fewer bodies are read.

        Never refuses: the answer exists, so this only says so. `end_hold` has to follow with the same numbers.

        Args:
            count: Number of bytes.
            owner: Whose answer it is, as `body.owner_of` tells it; "" where nobody knows.
        """
        of_owner = self._of_owner.setdefault(owner, HeldBytes())
        of_owner.rest += count
        self._held.rest += count

    def end_hold(self, count: int, owner: str = "") -> None:
        """Take back what `hold` has counted: so many bytes were read, or their connection is gone."""
        of_owner = self._of_owner[owner]
        of_owner.rest -= count
        self._held.rest -= count
        self._forget(owner, of_owner)

    def _check_first(self, count: int, of_owner: HeldBytes, request: HeldBytes) -> None:
        """Refuse first bytes that do not fit; large bodies and answers cannot take what is kept for them.

        Raises:
            QueueFullError: They do not.
        """
        left = self.max_bytes - self._held.first - min(self._held.rest, self._rest_room())
        others = of_owner.first - request.first
        if count > left or (others and of_owner.first + count > OWNER_SHARE * left):
            raise _full(is_owners=count <= left)

    def _check_rest(self, count: int, of_owner: HeldBytes, request: HeldBytes) -> None:
        """Refuse bytes behind the first ones that do not fit; a body that is the only such one may take all.

        Raises:
            QueueFullError: They do not.
        """
        if self._held.rest == request.rest:
            if count > self.max_bytes - self.held_bytes:
                raise _full(is_owners=False)
            return
        # First bytes of many small requests may have taken more than what is kept for them.
        left = min(self._rest_room() - self._held.rest, self.max_bytes - self.held_bytes)
        others = of_owner.rest - request.rest
        if count > left or (others and of_owner.rest + count > OWNER_SHARE * left):
            raise _full(is_owners=count <= left)

    def _rest_room(self) -> int:
        return round(self.max_bytes * (1 - KEPT_SHARE))

    def _forget(self, owner: str, of_owner: HeldBytes) -> None:
        """Forget a caller who holds nothing."""
        if not of_owner.first and not of_owner.rest:
            del self._of_owner[owner]


@dataclass(slots=True)
class BodyReservation:
    """What one request holds of the budget, until it has been answered.

    Attributes:
        budget: Shared by all requests.
        owner: Whose request it is; set before the first byte is reserved.
        held: How much this request holds.
    """

    budget: BodyMemoryBudget
    owner: str = ""
    held: HeldBytes = field(default_factory=HeldBytes)
    _inputs: int = FREE_INPUTS

    def add(self, count: int) -> None:
        """Reserve more bytes for the request.

        Raises:
            QueueFullError: Too little is left for this caller.
        """
        if count:
            self.budget.reserve(self.owner, count, self.held)

    def count_inputs(self, inputs: int) -> None:
        """Reserve what so many inputs take beside their bytes; more than before, where the request was counted before.

        Raises:
            QueueFullError: Too little is left for this caller.
        """
        if inputs > self._inputs:
            self.add((inputs - self._inputs) * INPUT_BYTES)
            self._inputs = inputs

    def release(self) -> None:
        """Give back all that the request holds."""
        self._inputs = FREE_INPUTS
        if self.held.first:
            self.budget.release(self.owner, self.held)


def _full(*, is_owners: bool) -> QueueFullError:
    if is_owners:
        message = (
            "Your requests under way hold as much memory as one caller may; wait for their answers."
        )
    else:
        message = "The server holds as many request bodies as it may; retry later."
    return QueueFullError(message, retry_after_s=1.0)
