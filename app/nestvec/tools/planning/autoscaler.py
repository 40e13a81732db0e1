"""How many servers there should be, by the seconds of work that wait: pure, after Kubernetes' HPA.

Every `interval_s` the wanted number is ceil(ready · signal / target), the signal being the queues' seconds a server;
nothing happens within the tolerance. More are wanted at once, fewer only once none of the last `calm_s` wanted more
(the HPA's stabilisation window).
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

TOLERANCE: Final = 0.1  # the HPA's own


@dataclass(slots=True)
class Autoscaler:
    """Decides how many servers there should be.

    Attributes:
        min_replicas: Never fewer.
        max_replicas: Never more.
        target_queue_s: Seconds of waiting work a server that are aimed at.
        interval_s: How often it looks.
        calm_s: For so long no more may have been wanted before servers go.
    """

    min_replicas: int
    max_replicas: int
    target_queue_s: float = 0.5
    interval_s: float = 15.0
    calm_s: float = 300.0
    _wanted: deque[tuple[float, int]] = field(default_factory=deque)

    def wanted(self, now_s: float, replicas: int, ready: int, queue_s: float) -> int:
        """Return how many servers there should be.

        Args:
            now_s: The time.
            replicas: Servers there are, those that start included.
            ready: Servers that take requests.
            queue_s: Seconds of work that wait, all servers together.
        """
        ratio = queue_s / max(1, ready) / self.target_queue_s
        wanted = replicas if abs(ratio - 1) <= TOLERANCE else math.ceil(ready * ratio)
        wanted = min(max(wanted, self.min_replicas), self.max_replicas)
        self._wanted.append((now_s, wanted))
        while self._wanted[0][0] < now_s - self.calm_s:
            self._wanted.popleft()
        most = max(count for _, count in self._wanted)
        if wanted >= replicas:
            return wanted
        # A window that is not over yet says nothing of what came before it.
        return min(replicas, most) if now_s >= self.calm_s else replicas
