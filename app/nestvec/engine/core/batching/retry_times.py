"""When refused callers shall come again: pure, no clock of its own.

They are told when there will be a place for them, one after the other: whoever is refused stands in a line of its own,
which moves as fast as the queue drains. Nobody is told to stay away for longer than what waits now will take, so that
the queue never runs empty for the sake of callers who might not come back.
"""

import random
from dataclasses import dataclass, field
from typing import Final

# openai-python does not retry at all after a longer `Retry-After`.
MAX_RETRY_AFTER_S: Final = 120.0
UNKNOWN_S: Final = 2.0  # where nothing is known of how fast the queue drains


@dataclass(slots=True)
class RetryTimes:
    """The line of those who were refused.

    Attributes:
        chooser: Spreads what callers are told; a seeded one makes it the same again.
    """

    chooser: random.Random = field(default_factory=random.Random)
    _line_s: float = 0.0
    _moved_s: float = 0.0

    def next_s(self, *, excess_s: float, own_s: float, waiting_s: float, now_s: float) -> float:
        """Return when the caller who is refused now shall come again, in seconds, jittered.

        Args:
            excess_s: How long it takes until there is room for the first in line.
            own_s: How much time of all workers the refused call takes.
            waiting_s: How long what waits now will take.
            now_s: Monotonic time.
        """
        line_s = max(0.0, self._line_s - (now_s - self._moved_s))
        self._line_s, self._moved_s = min(line_s + own_s, waiting_s), now_s
        return jittered(min(excess_s + line_s, waiting_s), self.chooser)


def jittered(wait_s: float, chooser: random.Random | None = None) -> float:
    """Return up to a quarter more or less, and never so little that all clients come back within the same second.

    Args:
        wait_s: When they shall come on average.
        chooser: Chooses how much more or less; None: differently each time.
    """
    uniform = random.uniform if chooser is None else chooser.uniform
    spread = wait_s * uniform(0.75, 1.25)
    return min(max(spread, uniform(1.0, 3.0)), MAX_RETRY_AFTER_S)
