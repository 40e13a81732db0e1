"""How fast the queue drains, measured over the last seconds while every worker is busy: pure, no clock of its own.

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
    """Worker seconds that a token takes, as a mean over the last seconds of full load.

    Attributes:
        first_token_s: An estimate from before anything was measured; None for none.
    """

    first_token_s: float | None = None
    _worker_s: float = 0.0
    _tokens: float = 0.0
    _observed_s: float = 0.0
    _measured_s: float = 0.0

    def __post_init__(self) -> None:
        """Begin with the first estimate, which what is measured soon outweighs."""
        if self.first_token_s:
            self._worker_s = FIRST_WEIGHT_S
            self._tokens = FIRST_WEIGHT_S / self.first_token_s

    @property
    def is_measured(self) -> bool:
        """Whether enough was measured to go by."""
        return self._measured_s >= MIN_MEASURED_S

    @property
    def token_s(self) -> float | None:
        """Seconds that a token takes one of the workers while all are busy; None while unknown."""
        return self._worker_s / self._tokens if self._tokens else None

    def observe(self, tokens: int, worker_s: float, now_s: float) -> None:
        """Learn from a worker's turn, during which all others were busy too.

        Args:
            tokens: Tokens of its batch.
            worker_s: How long the turn took, without what other models' workers took of it.
            now_s: Monotonic time.
        """
        if self._observed_s:
            kept = math.exp(min(0.0, self._observed_s - now_s) / WINDOW_S)
            self._worker_s *= kept
            self._tokens *= kept
        self._observed_s = now_s
        self._worker_s += worker_s
        self._tokens += tokens
        self._measured_s += worker_s
