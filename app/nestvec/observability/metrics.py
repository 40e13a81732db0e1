"""All metric definitions; implements the engine's observer. The registry is passed in, labels come from closed sets.

Several processes share a folder of mapped files (prometheus-client's multiprocess mode), so that any of them answers a
scrape for all, and what a killed one had counted is not lost.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    multiprocess,
    values,
)
from prometheus_client.exposition import choose_encoder

from nestvec import __version__
from nestvec.engine.cache.vector_cache import VectorCache
from nestvec.engine.models.model_registry import Slot
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.types import BatchStats, LongInput, Timings
from nestvec.system.nvml import GpuState

# Requests of a small model take a few milliseconds, queues under load seconds: 0.5 ms to 60 s.
SECONDS: Final = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25),
    *(0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0),
)
TOKENS: Final = (1, 4, 16, 32, 64, 128, 256, 384, 512, 768, 1024, 2048, 4096, 16384, 65536)
ITEMS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
ERROR_RATIO: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
LAG_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's own
STATM: Final = Path("/proc/self/statm")
RATIO: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


def share_metrics(folder: Path, role: str) -> None:
    """Count in a folder that several processes share; before any metric is made.

    Args:
        folder: Of the running server, made anew with it.
        role: Of this process; a process that takes the place of a dead one goes on with its counters.
    """
    os.environ[FOLDER_VARIABLE] = str(folder)
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: role)  # type: ignore[no-untyped-call] # the library has not typed it


def forget_gauges(folder: Path, role: str) -> None:
    """A process has died: what its gauges said no longer holds."""
    multiprocess.mark_process_dead(role, str(folder))  # type: ignore[no-untyped-call] # likewise


class Metrics:
    """Counts what happens; safe to call from any thread.

    Args:
        registry: Where the metrics live.
        role: Of this process among several.
    """

    def __init__(self, registry: CollectorRegistry, role: str = "server") -> None:
        self.registry = registry
        self._is_shared = FOLDER_VARIABLE in os.environ
        self._role = role
        self._cache: VectorCache | None = None
        self._held_bodies: Callable[[], int] = int
        self._cache_seen: dict[str, int] = {}
        if not self._is_shared:
            ProcessCollector(registry=registry)
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
        self._make_http(registry)
        self._make_keys(registry)
        self._make_engine(registry)
        self._make_processes(registry)
        self._make_cache(registry)
        self._make_gpu(registry)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics of all processes as text, and its content type.

        Args:
            accept: What the scraper takes.
        """
        self.sample()
        encode, content_type = choose_encoder(accept)
        registry = self.registry
        if self._is_shared:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # likewise
        return encode(registry), content_type

    def _make_http(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "nestvec_requests_total",
            "HTTP requests answered, by route, dialect and status.",
            ["route", "dialect", "status"],
            registry=registry,
        )
        self.request_duration = Histogram(
            "nestvec_request_duration_seconds",
            "From the first byte to the end of the answer, by route and outcome.",
            ["route", "outcome"],
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = self._sum(
            registry, "nestvec_in_flight_requests", "HTTP requests being answered."
        )
        self.connections = self._sum(registry, "nestvec_connections", "Open HTTP connections.")
        self.body_bytes = self._sum(
            registry, "nestvec_in_flight_body_bytes", "Bodies of requests being answered."
        )
        self.refused_connections = Counter(
            "nestvec_refused_connections_total",
            "Connections that were closed on the caller, by reason.",
            ["reason"],
            registry=registry,
        )
        self.loop_lag = Histogram(
            "nestvec_event_loop_lag_seconds",
            "How late the event loop was when it was asked, ten times a second.",
            buckets=LAG_SECONDS,
            registry=registry,
        )

    def _make_keys(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, ["key_id", *labels], registry=registry)

        self.key_requests = counter("nestvec_key_requests_total", "Requests, by the key's id.")
        self.key_tokens = counter("nestvec_key_tokens_total", "Tokens run, by the key's id.")
        self.rate_limited = counter(
            "nestvec_rate_limited_total", "Requests refused by a key's limits.", "reason"
        )

    def _make_processes(self, registry: CollectorRegistry) -> None:
        self._memory = Gauge(
            "nestvec_process_resident_memory_bytes",
            "Resident memory, by the process's role.",
            ["role"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.restarts = Counter(
            "nestvec_process_restarts_total",
            "Processes that ended unasked and were started again, by role.",
            ["role"],
            registry=registry,
        )
        self.suspects = self._sum(
            registry, "nestvec_suspect_inputs", "Inputs that ran when the engine died."
        )
        self.quarantined = self._sum(
            registry, "nestvec_quarantined_inputs", "Inputs that are not run for now."
        )
        self.overdue = self._sum(
            registry,
            "nestvec_engine_overdue_seconds",
            "By how much the slowest running micro-batch is over its time; 0 in health.",
        )

    def _make_cache(self, registry: CollectorRegistry) -> None:
        self._cache_hits = Counter(
            "nestvec_vector_cache_hits_total",
            "Inputs whose vector was kept.",
            ["tier"],
            registry=registry,
        )
        self._cache_counters = {
            name: Counter(f"nestvec_vector_cache_{name}_total", text, registry=registry)
            for name, text in (
                ("misses", "Inputs whose vector was not kept."),
                ("saved_tokens", "Tokens that were not run, as their vector was kept."),
                ("coalesced_inputs", "Inputs that waited for the same one's run."),
            )
        }
        self._cache_bytes = self._sum(
            registry, "nestvec_vector_cache_bytes", "What kept vectors take."
        )
        self._cache_entries = self._sum(registry, "nestvec_vector_cache_entries", "Kept vectors.")

    @staticmethod
    def _sum(registry: CollectorRegistry, name: str, text: str) -> Gauge:
        """A gauge whose values of several processes add up."""
        return Gauge(name, text, registry=registry, multiprocess_mode="livesum")

    def _make_engine(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, ["model", *labels], registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, ["model"], buckets=buckets, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(
                name, text, ["model"], registry=registry, multiprocess_mode="livemostrecent"
            )

        self._inputs = counter("nestvec_inputs_total", "Inputs answered with a vector.")
        self._tokens = counter("nestvec_tokens_total", "Tokens of inputs answered with a vector.")
        self._batch_outcomes = counter("nestvec_batches_total", "Micro-batches run.", "outcome")
        self._truncated = counter("nestvec_truncated_inputs_total", "Inputs that were cut.")
        self._dropped_tokens = counter(
            "nestvec_truncated_tokens_total",
            "Tokens cut off too-long inputs; the least, where the rest was not tokenised.",
        )
        self._windowed = counter(
            "nestvec_windowed_inputs_total", "Too-long inputs that were read in windows."
        )
        self._dropped = counter(
            "nestvec_dropped_inputs_total", "Inputs that left without a vector.", "reason"
        )
        self._shortages = counter(
            "nestvec_memory_shortages_total", "Micro-batches that did not fit into memory."
        )
        self._queue_items = gauge("nestvec_queue_items", "Inputs waiting.")
        self._queue_tokens = gauge("nestvec_queue_tokens", "Tokens waiting.")
        self._queue_wait = histogram(
            "nestvec_queue_wait_seconds", "Wait of each input for its batch.", SECONDS
        )
        self._tokenization = histogram(
            "nestvec_tokenization_duration_seconds", "Tokenising one request.", SECONDS
        )
        self._engine = histogram(
            "nestvec_engine_duration_seconds", "Running one micro-batch.", SECONDS
        )
        self._batch_tokens = histogram(
            "nestvec_batch_tokens", "Tokens of a micro-batch.", tuple(map(float, TOKENS))
        )
        self._batch_items = histogram(
            "nestvec_batch_inputs", "Inputs of a micro-batch.", tuple(map(float, ITEMS))
        )
        self._prediction_error = histogram(
            "nestvec_batch_prediction_error_ratio",
            "How far the predicted time of a micro-batch was off, relative to the real one.",
            ERROR_RATIO,
        )
        self._packing = histogram(
            "nestvec_batch_packing_ratio",
            "Tokens over inputs x longest input: the part of a padded batch that is not padding.",
            RATIO,
        )

    def _make_gpu(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, says: str) -> Gauge:
            return Gauge(
                f"nestvec_gpu_{name}",
                says,
                ["device"],
                registry=registry,
                multiprocess_mode="livemostrecent",
            )

        self._gpu_up = gauge("up", "1 while the GPU answers its management library, 0 when not.")
        self._gpu_values: dict[str, Gauge] = {
            "utilization": gauge("utilization_ratio", "Share of the time in which a kernel ran."),
            "memory_used_bytes": gauge("memory_used_bytes", "Taken by all processes."),
            "memory_total_bytes": gauge("memory_total_bytes", "Of the card."),
            "temperature_c": gauge("temperature_celsius", "Of the chip."),
            "power_w": gauge("power_watts", "Drawn now."),
            "uncorrected_errors": gauge(
                "memory_errors", "Uncorrected errors of its memory since the driver started."
            ),
        }

    def gpu_seen(self, number: int, state: GpuState) -> None:
        """A GPU answers; what it does not tell has no series."""
        self._gpu_up.labels(str(number)).set(1)
        for name, gauge in self._gpu_values.items():
            value = getattr(state, name)
            if value is not None:
                gauge.labels(str(number)).set(value)

    def gpu_silent(self, number: int) -> None:
        """It does not."""
        self._gpu_up.labels(str(number)).set(0)

    def model_changed(self, slot: Slot) -> None:
        """A model was loaded, unloaded, or could not be."""
        self._loaded.labels(slot.name).set(1 if slot.model is not None else 0)
        if slot.model is not None:
            self.model_served(slot.model)

    def model_served(self, model: ServedModel) -> None:
        """A model is loaded: its series start at zero, so that rates work from the first scrape."""
        spec = model.spec
        self._model_info.labels(
            spec.name,
            spec.space,
            spec.architecture,
            spec.precision,
            spec.pooling,
            model.core.traits.provider,
            str(spec.hidden_size),
        ).set(1)
        for counter in (
            *(self._inputs, self._tokens),
            *(self._truncated, self._dropped_tokens, self._windowed, self._shortages),
        ):
            counter.labels(spec.name)
        for histogram in (
            *(self._queue_wait, self._tokenization, self._engine),
            *(self._batch_tokens, self._batch_items, self._packing, self._prediction_error),
        ):
            histogram.labels(spec.name)
        for outcome in ("ok", "error"):
            self._batch_outcomes.labels(spec.name, outcome)
        for reason in ("cancelled", "deadline", "queue_full", "failed"):
            self._dropped.labels(spec.name, reason)
        self.queue_changed(spec.name, items=0, tokens=0)

    def batch_done(self, model: str, stats: BatchStats) -> None:
        """A micro-batch has run."""
        self._batch_outcomes.labels(model, stats.outcome).inc()
        self._engine.labels(model).observe(stats.engine_s)
        self._batch_tokens.labels(model).observe(stats.tokens)
        self._batch_items.labels(model).observe(stats.items)
        self._packing.labels(model).observe(stats.tokens / stats.padded_tokens)
        if stats.prediction_error is not None:
            self._prediction_error.labels(model).observe(stats.prediction_error)
        waits = self._queue_wait.labels(model)
        for wait_s in stats.waits_s:
            waits.observe(wait_s)

    def queue_changed(self, model: str, *, items: int, tokens: int) -> None:
        """Items have joined or left the queue."""
        self._queue_items.labels(model).set(items)
        self._queue_tokens.labels(model).set(tokens)

    def call_done(
        self, model: str, timings: Timings, *, inputs: int, tokens: int, truncated: int
    ) -> None:
        """A call was answered with all its vectors."""
        self._inputs.labels(model).inc(inputs)
        self._tokens.labels(model).inc(tokens)
        self._truncated.labels(model).inc(truncated)
        self._tokenization.labels(model).observe(timings.tokenize_s)

    def inputs_were_long(self, model: str, inputs: Sequence[LongInput]) -> None:
        """Inputs of an answered call were longer than the model takes."""
        self._dropped_tokens.labels(model).inc(sum(one.dropped_tokens for one in inputs))
        self._windowed.labels(model).inc(sum(one.windows > 1 for one in inputs))

    def cache_opened(self, cache: VectorCache) -> None:
        """Vectors are kept from now on."""
        self._cache = cache

    def watch_bodies(self, held: Callable[[], int]) -> None:
        """How many bytes of bodies are held, whenever it is asked."""
        self._held_bodies = held

    def items_dropped(self, model: str, *, items: int, reason: str) -> None:
        """Items left without a vector."""
        self._dropped.labels(model, reason).inc(items)

    def memory_was_short(self, model: str) -> None:
        """A batch did not fit into memory."""
        self._shortages.labels(model).inc()

    def sample(self) -> None:
        """Take over what others count: the cache and the kernel. At a scrape; every second where several share."""
        self._memory.labels(self._role).set(resident_bytes())
        self.body_bytes.set(self._held_bodies())
        cache = self._cache
        if cache is None:
            return
        counts = cache.counts
        self._advance(self._cache_hits.labels("memory"), "memory", counts.hits - counts.stored_hits)
        self._advance(self._cache_hits.labels("file"), "file", counts.stored_hits)
        for name, value in (
            ("misses", counts.misses),
            ("saved_tokens", counts.saved_tokens),
            ("coalesced_inputs", counts.coalesced),
        ):
            self._advance(self._cache_counters[name], name, value)
        self._cache_bytes.set(cache.held_bytes)
        self._cache_entries.set(cache.entries)

    def _advance(self, counter: Counter, name: str, value: int) -> None:
        """Bring a counter up to what was counted elsewhere."""
        counter.inc(max(0, value - self._cache_seen.get(name, 0)))
        self._cache_seen[name] = value


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not tell."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
