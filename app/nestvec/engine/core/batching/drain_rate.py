"""How fast the queue drains, measured over the last seconds while every worker is busy: pure, no clock of its own.

It is measured in token equivalents: a token of a long text takes longer than one of a short text. How many tokens those
were is kept beside it, for operators: what comes counts in tokens.

A batch's own time says too little of it: workers also wait for the interpreter, deliver and choose, and cores are
slower where all of them are busy. What is measured is a worker's whole turn, from taking a batch to being free again.
"""

import math
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 5.0  # a turn so long ago counts a third
MIN_MEASURED_S: Final = 1.0  # worker seconds; what was measured over less says little
FIRST_WEIGHT_S: Final = 0.5  # worker seconds that a first estimate counts for


@dataclass(slots=True)
class DrainRate:
    """Worker seconds that a token equivalent takes, as a mean over the last seconds of full load.

    Attributes:
        first_cost_s: An estimate from before anything was measured; None for none.
    """

    first_cost_s: float | None = None
    _worker_s: float = 0.0
    _cost: float = 0.0
    _tokens: float = 0.0
    _observed_s: float = 0.0
    _measured_s: float = 0.0

    def __post_init__(self) -> None:
        """Begin with the first estimate, which what is measured soon outweighs."""
        if self.first_cost_s:
            self._worker_s = FIRST_WEIGHT_S
            self._cost = self._tokens = FIRST_WEIGHT_S / self.first_cost_s

    @property
    def is_measured(self) -> bool:
        """Whether enough was measured to go by."""
        return self._measured_s >= MIN_MEASURED_S

    @property
    def cost_s(self) -> float | None:
        """Seconds that a token equivalent takes one of the workers while all are busy; None while unknown."""
        return self._worker_s / self._cost if self._cost else None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens that one of the workers runs in a second while all are busy; None while unknown."""
        return self._tokens / self._worker_s if self._worker_s else None

    def observe(self, cost: float, worker_s: float, now_s: float, *, tokens: float) -> None:
        """Learn from a worker's turn, during which all others were busy too.

        Args:
            cost: What the items of its batch cost, each alone, in token equivalents.
            worker_s: How long the turn took, without what other models' workers took of it.
            now_s: Monotonic time.
            tokens: How many tokens the batch held.
        """
        if self._observed_s:
            kept = math.exp(min(0.0, self._observed_s - now_s) / WINDOW_S)
            self._worker_s *= kept
            self._cost *= kept
            self._tokens *= kept
        # A long text's turn tells no more of the last seconds than they are long.
        share = min(1.0, WINDOW_S / worker_s) if worker_s else 1.0
        self._observed_s = now_s
        self._worker_s += worker_s * share
        self._cost += cost * share
        self._tokens += tokens * share
        self._measured_s += worker_s
