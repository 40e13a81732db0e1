"""Metrics of what is served: the version, the models, and readiness."""

from prometheus_client import CollectorRegistry, Gauge

from nestvec import __version__
from nestvec.engine.models.model_registry import ModelSlot


class ServiceMetrics:
    """Says which models are served, and whether requests are.

    Args:
        registry: Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        build = Gauge(
            "nestvec_build_info",
            "1, with the version.",
            ["version"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        build.labels(__version__).set(1)
        self._model_info = Gauge(
            "nestvec_model_info",
            "1 for each served model, with what it is.",
            ["model", "space", "architecture", "precision", "pooling", "provider", "dimensions"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self._loaded = Gauge(
            "nestvec_model_loaded",
            "1 while a model is in memory.",
            ["model"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.ready = Gauge(
            "nestvec_ready",
            "1 while requests are served.",
            registry=registry,
            multiprocess_mode="livemin",
        )

    def model_changed(self, slot: ModelSlot) -> None:
        """Note that a model was loaded or unloaded, or could not be loaded."""
        self._loaded.labels(slot.name).set(1 if slot.model is not None else 0)
        if slot.model is None:
            return
        spec = slot.model.spec
        self._model_info.labels(
            spec.name,
            spec.space,
            spec.architecture,
            spec.precision,
            spec.pooling,
            slot.model.core.backend_info.provider,
            str(spec.hidden_size),
        ).set(1)
