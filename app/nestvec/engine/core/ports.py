"""What the front half of the engine needs of the core, wherever that runs, and what the core tells of its batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nestvec.engine.types import Item, RawVectors
from nestvec.engine.vectors.pooler import Outputs


@dataclass(frozen=True, slots=True)
class Traits:
    """What is known of whatever runs a model's graph; see `Backend`.

    Attributes:
        max_batch_tokens: Budget of a micro-batch.
    """

    provider: str
    hidden_size: int
    gives_tokens: bool
    layers: int
    max_batch_tokens: int


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a core is.

    Attributes:
        overdue_s: By how much the slowest running batch is over the time that it may take; 0 in health.
        waiting_tokens: In the queue.
        token_s: Seconds that each of them will take, all workers together; 0 while unknown.
        max_queue_tokens: That may wait.
    """

    overdue_s: float = 0.0
    waiting_tokens: int = 0
    token_s: float = 0.0
    max_queue_tokens: int = 0


class Core(Protocol):
    """Runs items of one model: in this process, or behind a socket."""

    @property
    def outputs(self) -> Outputs:
        """What is made of token states."""

    @property
    def traits(self) -> Traits:
        """What runs the graph."""

    def check_room(self, tokens: int, key_id: str) -> None:
        """Refuse now what `submit` would refuse; cheap, for use before any work is done on a call.

        Args:
            tokens: A careful estimate of what the call needs.
            key_id: Whose it is.

        Raises:
            QueueFullError: There is no room.
        """

    def vitals(self, now_s: float, patience_s: float) -> Vitals:
        """How it is; from any thread.

        Args:
            now_s: Monotonic time.
            patience_s: What any batch may take; one that is known to be long may take ten times as predicted.
        """

    async def submit(self, items: Sequence[Item]) -> RawVectors:
        """Run items, at least one, and wait for all their vectors.

        Raises:
            CapacityError: Not now.
            InternalError: The runtime failed on an item; `input_index` names it.
        """

    def close(self) -> None:
        """Stop; whatever waits fails with NotReadyError."""


class Lane(Protocol):
    """Where one worker notes what it runs, so that it is known after the process was killed."""

    def begin(self, items: Sequence[Item]) -> None:
        """These run from now on."""

    def end(self) -> None:
        """They have run."""


class Recorder(Protocol):
    """Knows which items were running when the process died, and keeps those that kill it out."""

    def lane(self) -> Lane:
        """A place for one more worker."""

    def check(self, items: Sequence[Item]) -> list[bool]:
        """Which of the items are suspects and must run alone.

        Raises:
            QuarantinedError: One of them killed the engine alone, twice; `input_index` names it.
        """

    def clear(self, item: Item) -> None:
        """It ran, and did no harm."""

    def await_end(self) -> None:
        """This process cannot go on: block until it is ended, if another will take its work over."""


class _NoLane:
    def begin(self, items: Sequence[Item]) -> None:
        """Nothing to note."""

    def end(self) -> None:
        """Nothing to note."""


class NullRecorder:
    """Notes nothing: where a crash ends the process for good."""

    def lane(self) -> Lane:
        """A place where nothing is noted."""
        return _NoLane()

    def check(self, items: Sequence[Item]) -> list[bool]:
        """Nobody is suspect."""
        return [False] * len(items)

    def clear(self, item: Item) -> None:
        """Nobody was."""

    def await_end(self) -> None:
        """Nobody takes over."""
