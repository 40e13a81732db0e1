"""How large a micro-batch may be just now: pure.

Three bounds: what is set or tuned, what takes no longer than a batch may, and what memory was seen to hold. The last
one halves when memory is short and grows again with every batch that ran, as congestion windows do.
"""

from dataclasses import dataclass
from typing import Final

LEAST_BATCH_TOKENS: Final = 64.0  # no bound cuts batches below this
GROWTH: Final = 1.02  # a batch; twice as large after 35


@dataclass(slots=True)
class Budget:
    """The least of the three.

    Attributes:
        most: As set or tuned, in the backend's units of cost.
        within_time: What takes as long as a batch may; none while unknown.
        within_memory: What memory holds; none while it was never short.
    """

    most: float
    within_time: float | None = None
    within_memory: float | None = None

    @property
    def now(self) -> float:
        """What a batch may cost."""
        bounds = (self.within_time, self.within_memory)
        return min([self.most, *(max(LEAST_BATCH_TOKENS, b) for b in bounds if b is not None)])

    def ran(self) -> None:
        """A batch has run: there is memory."""
        if self.within_memory is not None:
            grown = self.within_memory * GROWTH
            self.within_memory = grown if grown < self.most else None

    def memory_was_short(self, cost: float) -> None:
        """A batch of this cost did not fit into memory."""
        bound = self.within_memory
        self.within_memory = max(LEAST_BATCH_TOKENS, min(cost, bound or cost) / 2)
