"""All metrics of a process, put together from the topics. The registry is passed in, labels come from closed sets."""

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from nestvec.engine.models.model_registry import ModelSlot
from nestvec.observability.cache_metrics import CacheMetrics
from nestvec.observability.drift_metrics import DriftMetrics
from nestvec.observability.energy_metrics import EnergyMetrics
from nestvec.observability.engine_metrics import EngineMetrics
from nestvec.observability.front_metrics import FrontMetrics
from nestvec.observability.gpu_metrics import GpuMetrics
from nestvec.observability.http_metrics import HttpMetrics
from nestvec.observability.job_metrics import JobMetrics
from nestvec.observability.key_metrics import KeyMetrics
from nestvec.observability.process_metrics import ProcessMetrics
from nestvec.observability.queue_metrics import QueueMetrics
from nestvec.observability.service_metrics import ServiceMetrics
from nestvec.observability.shared_metrics import is_shared, keep_files, registry_of_all
from nestvec.observability.tracing.span_metrics import SpanMetrics


class Metrics:
    """Everything that a process counts, by topic; safe to call from any thread.

    Args:
        registry: Where the metrics live.
        role: Role of this process among several.
        runs_models: Whether models are loaded in this process, rather than asked of an engine process.

    Attributes:
        service: What is served.
        http: Requests and connections.
        keys: Use of API keys.
        engine: The engine's `Observer`.
        queues: What changes in queues with time alone.
        front: Threads that tokenize and finish.
        processes: Memory, restarts, health of the engine.
        cache: The vector cache.
        gpu: GPUs.
        energy: What the processors take.
        jobs: Files and batches.
        drift: How far texts have moved from a reference.
        spans: Spans that were recorded and lost.
    """

    def __init__(
        self, registry: CollectorRegistry, role: str = "server", *, runs_models: bool = True
    ) -> None:
        self.registry = registry
        self._is_shared = is_shared()
        if not self._is_shared:
            ProcessCollector(registry=registry)
        self.service = ServiceMetrics(registry, runs_models=runs_models)
        self.http = HttpMetrics(registry)
        self.keys = KeyMetrics(registry)
        self.engine = EngineMetrics(registry)
        self.queues = QueueMetrics(registry)
        self.front = FrontMetrics(registry)
        self.processes = ProcessMetrics(registry, role)
        self.cache = CacheMetrics(registry)
        self.gpu = GpuMetrics(registry)
        self.energy = EnergyMetrics(registry)
        self.jobs = JobMetrics(registry)
        self.drift = DriftMetrics(registry)
        self.spans = SpanMetrics(registry)

    def model_changed(self, slot: ModelSlot) -> None:
        """Note that a model was loaded or unloaded, or could not be loaded."""
        self.service.model_changed(slot)
        if slot.model is not None:
            self.engine.start_series(slot.model.spec.name)

    def sample(self) -> None:
        """Take over what others count: memory, bodies, the cache; and write down again what was deleted under us.

        It is called at each scrape, and every second where several processes count together.
        """
        keep_files()
        self.processes.sample()
        self.http.sample()
        self.cache.sample()
        self.front.sample()
        self.keys.sample()
        self.queues.sample()
        self.energy.sample()

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics of all processes as text, and its content type.

        Args:
            accept: The scraper's Accept header.
        """
        self.sample()
        encode, content_type = choose_encoder(accept)
        return encode(
            registry_of_all(self.registry) if self._is_shared else self.registry
        ), content_type
