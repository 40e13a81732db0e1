"""An admitted call on its way: the vectors gathered so far, and the future that waits for them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from nestvec.engine.types import FloatArray, Item, RawVectors
from nestvec.errors import BackendError, NestvecError

NOTHING: Final = np.empty((0, 0), np.float32)


@dataclass(slots=True)
class PendingCall:
    """Gathers the vectors of a call; whoever changes it holds the core's lock."""

    future: asyncio.Future[RawVectors]
    loop: asyncio.AbstractEventLoop
    parts: list[FloatArray]
    remaining: int
    arrived_s: float
    wait_s: float = 0.0

    @classmethod
    def begin(cls, items: Sequence[Item], now_s: float) -> Self:
        """A call of these items, on the running event loop."""
        loop = asyncio.get_running_loop()
        parts = [NOTHING] * len(items)
        return cls(loop.create_future(), loop, parts, len(items), now_s)

    def put(self, position: int, rows: FloatArray, *, wait_s: float) -> bool:
        """Take one item's rows, (r, D); true once they were the last."""
        self.parts[position] = rows
        self.remaining -= 1
        self.wait_s = max(self.wait_s, wait_s)
        return self.remaining == 0

    def finish(self, now_s: float) -> None:
        """Give the vectors to whoever waits."""
        engine_s = max(0.0, now_s - self.arrived_s - self.wait_s)
        vectors = self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)
        rows = tuple(map(len, self.parts))
        self.resolve(RawVectors(vectors, rows, self.wait_s, engine_s))

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
