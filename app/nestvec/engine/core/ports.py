"""What the engine's service needs of a core, wherever that runs, and what a core tells of the batches it runs."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from nestvec.engine.backend import BackendInfo
from nestvec.engine.results import RawVectors
from nestvec.engine.types import Item, ItemOptions, Submission
from nestvec.engine.vectors.pooler import Pooler


@dataclass(frozen=True, slots=True)
class CoreHealth:
    """How a core is.

    Attributes:
        overdue_s: By how much the slowest running batch is over the time that it may take; 0 in health.
        waiting_tokens: Number of tokens in the queue.
        token_s: Seconds that each of them takes, all workers together; 0 while unknown.
        max_queue_tokens: Number of tokens that may wait.
    """

    overdue_s: float = 0.0
    waiting_tokens: int = 0
    token_s: float = 0.0
    max_queue_tokens: int = 0


class Core(Protocol):
    """Runs items of one model: in this process, or behind a socket."""

    @property
    def pooler(self) -> Pooler:
        """What is made of token states."""

    @property
    def backend_info(self) -> BackendInfo:
        """What the backend is and gives."""

    @property
    def max_batch_tokens(self) -> int:
        """Budget of a micro-batch in token equivalents."""

    def expecting(self, tokens: int, options: ItemOptions) -> AbstractContextManager[None]:
        """Refuse now what `submit` would refuse; cheap, for use before any work is done on a call.

        As long as the block runs, calls that come later stand behind this one, though it has not joined the queue yet.

        Args:
            tokens: A careful estimate of what the call needs.
            options: Its key, class and deadline, and when it came.

        Raises:
            QueueFullError: There is no room, or the wait would be too long.
        """

    def health(self, now_s: float, batch_timeout_s: float) -> CoreHealth:
        """Return how the core is; may be called from any thread.

        Args:
            now_s: Monotonic time.
            batch_timeout_s: How long any batch may take; one known to be long may take ten times its prediction.
        """

    async def submit(self, submission: Submission) -> RawVectors:
        """Run the items of a call and wait for all their vectors.

        Raises:
            CapacityError: The call cannot be served now.
            InternalError: The runtime failed on an item; `input_index` names it.
        """

    def close(self) -> None:
        """Stop the core; whatever waits fails with NotReadyError."""


class InFlightSlot(Protocol):
    """Where one worker notes what it runs, so that it is known after the process was killed."""

    def begin(self, items: Sequence[Item], options: Sequence[ItemOptions]) -> None:
        """Note that these items run from now on, each with the options of its call."""

    def end(self) -> None:
        """Note that nothing runs any more."""

    def release(self) -> None:
        """Give the slot back; the worker has ended."""


class CrashGuard(Protocol):
    """Knows which items were running when the process died, and keeps out those that end it."""

    def slot(self) -> InFlightSlot:
        """Return a slot for one more worker."""

    def check(self, submission: Submission) -> list[bool]:
        """Return for each item of a call whether it is a suspect and must run alone.

        Raises:
            QuarantinedError: An item ended the engine process alone, twice; `input_index` names it.
        """

    def clear(self, item: Item, options: ItemOptions) -> None:
        """Note that an item ran and did no harm."""

    def await_end(self) -> None:
        """Block until this process, which cannot go on, is ended, if another will take its work over."""


class _NullSlot:
    def begin(self, items: Sequence[Item], options: Sequence[ItemOptions]) -> None:
        """Note nothing."""

    def end(self) -> None:
        """Note nothing."""

    def release(self) -> None:
        """Do nothing: there is nothing to give back."""


class NullCrashGuard:
    """Suspects nobody; for where a crash ends the process for good."""

    def slot(self) -> InFlightSlot:
        """Return a slot in which nothing is noted."""
        return _NullSlot()

    def check(self, submission: Submission) -> list[bool]:
        """Return that no item is a suspect."""
        return [False] * len(submission.items)

    def clear(self, item: Item, options: ItemOptions) -> None:
        """Do nothing: nobody was a suspect."""

    def await_end(self) -> None:
        """Return at once: nobody takes the work over."""
