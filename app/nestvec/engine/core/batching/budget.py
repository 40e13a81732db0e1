"""How large a micro-batch may be just now, and what counts as short: pure.

There are three bounds: what is set or tuned, what takes no longer than a batch may, and what memory was seen to hold.
The last one halves when memory is short and grows again with every batch that ran, as congestion windows do.
"""

from dataclasses import dataclass
from typing import Final

MIN_BATCH_TOKENS: Final = 64.0  # no bound cuts batches below this
GROWTH: Final = 1.02  # per batch; a bound is twice as large after 35 batches


@dataclass(slots=True)
class Budget:
    """The lowest of the three bounds, in the backend's units of cost (token equivalents).

    Attributes:
        max_cost: The bound that is set or tuned.
        within_time: Cost of a batch that takes as long as a batch may; None while unknown.
        first_within_time: An estimate of it from before any batch ran, which cuts no batch; None for none.
        within_memory: Cost of a batch that fits into memory; None while memory was never short.
    """

    max_cost: float
    within_time: float | None = None
    first_within_time: float | None = None
    within_memory: float | None = None

    @property
    def now(self) -> float:
        """Highest cost of a batch at present."""
        bounds = (self.within_time, self.within_memory)
        return min([self.max_cost, *(max(MIN_BATCH_TOKENS, b) for b in bounds if b is not None)])

    @property
    def max_short_cost(self) -> float:
        """Cost up to which an item is short: it takes no longer than a batch may, or no batch is ever cut below it."""
        bounds = (self.within_time, self.first_within_time, self.max_cost)
        return max(MIN_BATCH_TOKENS, next(bound for bound in bounds if bound is not None))

    def batch_ran(self) -> None:
        """Let the memory bound grow: a batch has run, so there was memory for it."""
        if self.within_memory is not None:
            grown = self.within_memory * GROWTH
            self.within_memory = grown if grown < self.max_cost else None

    def memory_was_short(self, cost: float) -> None:
        """Halve the memory bound: a batch of this cost did not fit."""
        bound = self.within_memory
        self.within_memory = max(MIN_BATCH_TOKENS, min(cost, bound or cost) / 2)
