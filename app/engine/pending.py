"""An admitted call on its way: the vectors gathered so far, and the future that waits for them."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from app.engine.types import FloatArray, Item
from app.errors import BackendError, NestvecError


@dataclass(frozen=True, slots=True)
class RawVectors:
    """What the core returns for a call.

    Attributes:
        vectors: Not cut nor normalised; (R, H), float32, in item order, `rows` of each.
        queue_wait_s: The longest wait among the items.
        engine_s: From the first item's start to the last vector, queue wait excluded.
    """

    vectors: FloatArray
    queue_wait_s: float
    engine_s: float


@dataclass(slots=True)
class PendingCall:
    """Gathers the vectors of a call; whoever changes it holds the core's lock."""

    future: asyncio.Future[RawVectors]
    loop: asyncio.AbstractEventLoop
    vectors: FloatArray
    starts: Sequence[int]
    remaining: int
    arrived_s: float
    wait_s: float = 0.0

    @classmethod
    def begin(cls, items: Sequence[Item], width: int, now_s: float) -> Self:
        """A call of these items, on the running event loop."""
        loop = asyncio.get_running_loop()
        starts = list(itertools.accumulate((item.rows for item in items), initial=0))
        vectors = np.empty((starts.pop(), width), np.float32)
        return cls(loop.create_future(), loop, vectors, starts, len(items), now_s)

    def put(self, position: int, vectors: FloatArray, *, wait_s: float) -> bool:
        """Take one item's vectors, (rows, H); true once they were the last."""
        start = self.starts[position]
        self.vectors[start : start + len(vectors)] = vectors
        self.remaining -= 1
        self.wait_s = max(self.wait_s, wait_s)
        return self.remaining == 0

    def finish(self, now_s: float) -> None:
        """Give the vectors to whoever waits."""
        engine_s = max(0.0, now_s - self.arrived_s - self.wait_s)
        self.resolve(RawVectors(self.vectors, self.wait_s, engine_s))

    def resolve(self, outcome: RawVectors | NestvecError) -> None:
        """Hand an outcome to the waiter's loop; a loop that has closed waits for nothing."""

        def settle() -> None:
            if self.future.done():
                return
            if isinstance(outcome, NestvecError):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)

        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(settle)


def as_item_error(error: Exception, item: Item) -> NestvecError:
    """Name the input; unknown errors keep their text out, as it may quote the caller's."""
    if isinstance(error, NestvecError) and not isinstance(error, BackendError):
        return error
    failure = BackendError("The model runtime failed on this input.", input_index=item.index)
    failure.__cause__ = error
    return failure
