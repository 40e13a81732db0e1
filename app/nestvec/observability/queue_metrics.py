"""Metrics of queues that change with time alone: taken from the cores at each sample, by the process that runs them."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Gauge

from nestvec.engine.core.engine_core import EngineCore
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import Priority


class QueueMetrics:
    """Says how long the oldest item of each class has waited, and what a model's workers can do.

    Args:
        registry: Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        # Of several engine processes the worst one, as each has a queue of its own.
        self._oldest_s = Gauge(
            "nestvec_queue_oldest_seconds",
            "How long the oldest waiting input of a priority class has waited.",
            ["model", "priority"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._capacity = Gauge(
            "nestvec_capacity_tokens_per_second",
            "Tokens that a model's workers run in a second while all are busy.",
            ["model"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._loaded: Callable[[], Sequence[ServedModel]] = tuple
        self._known: set[str] = set()

    def watch(self, loaded: Callable[[], Sequence[ServedModel]]) -> None:
        """Sample the cores of these models from now on.

        Args:
            loaded: Gives the models that are in memory; cores of other processes are left to these.
        """
        self._loaded = loaded

    def sample(self) -> None:
        """Take over how the queues are now; a model that is not in memory has nothing waiting and can do nothing."""
        cores = {
            model.spec.name: model.core
            for model in self._loaded()
            if isinstance(model.core, EngineCore)
        }
        self._known |= cores.keys()
        for name in self._known:
            core = cores.get(name)
            ages_s = core.queue.ages_s() if core is not None else dict.fromkeys(Priority, 0.0)
            for priority, age_s in ages_s.items():
                self._oldest_s.labels(name, priority).set(age_s)
            tokens = core.queue.tokens_per_second() if core is not None else 0.0
            if tokens is not None:
                self._capacity.labels(name).set(tokens)
