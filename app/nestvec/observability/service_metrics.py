"""Metrics of what is served: the version, the models, and readiness."""

import platform
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from nestvec import __version__
from nestvec.engine.core.engine_core import EngineCore
from nestvec.engine.models.model_registry import ModelSlot, SlotState
from nestvec.system.packages import installed_version

# From a small model in the page cache to the first start of a large one, which is exported and calibrated.
LOAD_SECONDS: Final = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)


class ServiceMetrics:
    """Says which models are served, and whether requests are.

    Args:
        registry: Where the metrics live.
        runs_models: Whether models are loaded in this process, rather than asked of an engine process.
    """

    def __init__(self, registry: CollectorRegistry, *, runs_models: bool = True) -> None:
        build = Gauge(
            "nestvec_build_info",
            "1, with the versions of the server, of Python and of the runtime.",
            ["version", "python", "onnxruntime"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        build.labels(__version__, platform.python_version(), _runtime_version()).set(1)
        self._runs_models = runs_models
        self._make_load_metrics(registry)
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

    def _make_load_metrics(self, registry: CollectorRegistry) -> None:
        """Make the metrics of loading models, and of what a loaded one can take."""
        self._loads = Counter(
            "nestvec_model_loads_total",
            "Models that were loaded, could not be, or were unloaded.",
            ["model", "outcome"],
            registry=registry,
        )
        self._load_duration = Histogram(
            "nestvec_model_load_duration_seconds",
            "Loading a model, its preparation at a first start included.",
            ["model"],
            buckets=LOAD_SECONDS,
            registry=registry,
        )
        self._workers, self._queue_limit = (
            Gauge(name, text, ["model"], registry=registry, multiprocess_mode="livesum")
            for name, text in (
                ("nestvec_workers", "Threads that run micro-batches."),
                ("nestvec_queue_limit_tokens", "Tokens that may wait before calls are refused."),
            )
        )

    def model_changed(self, slot: ModelSlot) -> None:
        """Note that a model was loaded or unloaded, or could not be loaded."""
        self._loaded.labels(slot.name).set(1 if slot.model is not None else 0)
        if self._runs_models:
            self._count_change(slot)
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

    def _count_change(self, slot: ModelSlot) -> None:
        """Count a load, a failure or an unloading, and show what a loaded model can take."""
        core = slot.model.core if slot.model is not None else None
        batching = core.options.batching if isinstance(core, EngineCore) else None
        self._workers.labels(slot.name).set(batching.workers if batching else 0)
        self._queue_limit.labels(slot.name).set(batching.max_queue_tokens if batching else 0)
        for outcome in ("ok", "error", "unloaded"):
            self._loads.labels(slot.name, outcome)
        if slot.state is SlotState.READY:
            self._loads.labels(slot.name, "ok").inc()
            self._load_duration.labels(slot.name).observe(slot.load_s)
        elif slot.state is SlotState.FAILED:
            self._loads.labels(slot.name, "error").inc()
        elif slot.spec is not None:  # it was loaded before
            self._loads.labels(slot.name, "unloaded").inc()


def _runtime_version() -> str:
    """Return the version of ONNX Runtime that is installed, "" for none; not every process imports it."""
    return installed_version("onnxruntime") or installed_version("onnxruntime-gpu") or ""
