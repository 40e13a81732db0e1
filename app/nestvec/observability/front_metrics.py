"""Metrics of the front's threads, which count by themselves: they are brought up to their figures at each sample."""

from prometheus_client import CollectorRegistry, Counter

from nestvec.engine.front.front_threads import FrontThreads
from nestvec.observability.shared_metrics import summed_gauge


class FrontMetrics:
    """Tells what the threads that tokenize and finish do, and what waits for them.

    Args:
        registry: Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._threads = summed_gauge(
            registry, "nestvec_front_threads", "Threads that tokenise and finish."
        )
        self._busy = summed_gauge(
            registry, "nestvec_front_busy_threads", "Threads that tokenise or finish now."
        )
        self._calls = summed_gauge(
            registry, "nestvec_front_waiting_calls", "Calls that wait for one of these threads."
        )
        self._chars = summed_gauge(
            registry, "nestvec_front_waiting_characters", "Characters that wait to be tokenised."
        )
        self._chars_limit = summed_gauge(
            registry, "nestvec_front_limit_characters", "Characters that may wait to be tokenised."
        )
        self._refused = Counter(
            "nestvec_front_refused_calls_total",
            "Calls refused as too much waited to be tokenised.",
            registry=registry,
        )
        self._front: FrontThreads | None = None
        self._last_refused = 0

    def watch(self, front: FrontThreads) -> None:
        """Sample these threads from now on."""
        self._front = front
        self._chars_limit.set(front.max_waiting_chars)

    def sample(self) -> None:
        """Take over what the threads count; nothing where there are none."""
        front = self._front
        if front is None:
            return
        self._threads.set(front.threads)
        self._busy.set(front.busy)
        self._calls.set(front.waiting)
        self._chars.set(front.waiting_chars)
        self._refused.inc(front.refused - self._last_refused)
        self._last_refused = front.refused
