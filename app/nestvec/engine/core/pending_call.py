"""An admitted call on its way: the vectors gathered so far, and the future that waits for them."""

import asyncio
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from nestvec.engine.results import RawVectors
from nestvec.engine.types import FloatArray, Item, Priority
from nestvec.errors import BackendError, NestvecError

NO_ROWS: Final = np.empty((0, 0), np.float32)


@dataclass(slots=True)
class PendingCall:
    """Gathers the vectors of a call; whoever changes it holds the core's lock.

    Attributes:
        call_id: The call's number in the queue.
        future: What the caller waits for.
        loop: The caller's event loop.
        rows: Rows of each item; empty where they are still missing.
        missing: Number of items whose rows are missing.
        arrived_s: Monotonic time of its arrival.
        wait_s: The longest queue wait among its items so far.
        priority: Its scheduling class.
        predicted_s: How long it should take, as was foreseen when it was admitted; 0 where nothing was.
    """

    call_id: int
    future: asyncio.Future[RawVectors]
    loop: asyncio.AbstractEventLoop
    rows: list[FloatArray]
    missing: int
    arrived_s: float
    wait_s: float = 0.0
    priority: Priority = Priority.INTERACTIVE
    predicted_s: float = 0.0

    @classmethod
    def begin(cls, call_id: int, items: int, now_s: float) -> Self:
        """Return a call of so many items, awaited on the running event loop."""
        loop = asyncio.get_running_loop()
        return cls(call_id, loop.create_future(), loop, [NO_ROWS] * items, items, now_s)

    def put(self, position: int, rows: FloatArray, *, wait_s: float) -> bool:
        """Take one item's rows, (r, D), and return whether they were the last ones missing."""
        self.rows[position] = rows
        self.missing -= 1
        self.wait_s = max(self.wait_s, wait_s)
        return self.missing == 0

    def finish(self, now_s: float) -> None:
        """Give the vectors to whoever waits for them."""
        engine_s = max(0.0, now_s - self.arrived_s - self.wait_s)
        vectors = self.rows[0] if len(self.rows) == 1 else np.concatenate(self.rows)
        counts = tuple(map(len, self.rows))
        self.resolve(RawVectors(vectors, counts, self.wait_s, engine_s))

    def resolve(self, outcome: RawVectors | NestvecError) -> None:
        """Hand an outcome to the caller's event loop; a loop that has closed waits for nothing."""

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
    """Return an error that names the input; the text of unknown errors is left out, as it may quote the caller's."""
    if isinstance(error, NestvecError) and not isinstance(error, BackendError):
        return error
    failure = BackendError("The model runtime failed on this input.", input_index=item.index)
    failure.__cause__ = error
    return failure
