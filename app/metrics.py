"""All metric definitions; implements the engine's observer. The registry is passed in, labels come from closed sets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from app import __version__
from app.engine.registry import ServedModel
from app.engine.slots import Slot
from app.engine.types import BatchStats, LongInput, Timings
from app.engine.vector_cache import VectorCache

# Requests of a small model take a few milliseconds, queues under load seconds: 0.5 ms to 60 s.
SECONDS: Final = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25),
    *(0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0),
)
TOKENS: Final = (1, 4, 16, 32, 64, 128, 256, 384, 512, 768, 1024, 2048, 4096, 16384, 65536)
ITEMS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
ERROR_RATIO: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
RATIO: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class Metrics:
    """Counts what happens; safe to call from any thread.

    Args:
        registry: Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        build = Gauge("nestvec_build_info", "1, with the version.", ["version"], registry=registry)
        build.labels(__version__).set(1)
        self._model_info = Gauge(
            "nestvec_model_info",
            "1 for each served model, with what it is.",
            ["model", "space", "architecture", "precision", "pooling", "provider", "dimensions"],
            registry=registry,
        )
        self._loaded = Gauge(
            "nestvec_model_loaded", "1 while a model is in memory.", ["model"], registry=registry
        )
        self.ready = Gauge("nestvec_ready", "1 while requests are served.", registry=registry)
        self._make_http(registry)
        self._make_engine(registry)

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
        self.in_flight = Gauge(
            "nestvec_in_flight_requests", "HTTP requests being answered.", registry=registry
        )

    def _make_engine(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, ["model", *labels], registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, ["model"], buckets=buckets, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, ["model"], registry=registry)

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
            model.core.backend.provider,
            str(spec.hidden_size),
        ).set(1)
        for counter in (
            *(self._inputs, self._tokens),
            *(self._truncated, self._dropped_tokens, self._windowed),
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
        self.registry.register(_CacheCollector(cache))

    def items_dropped(self, model: str, *, items: int, reason: str) -> None:
        """Items left without a vector."""
        self._dropped.labels(model, reason).inc(items)


@dataclass(slots=True, eq=False)
class _CacheCollector(Collector):
    """Reads what the cache counts itself, when it is asked."""

    cache: VectorCache

    @override
    def collect(self) -> Iterator[Metric]:
        """Its counters and sizes."""
        counts = self.cache.counts
        hits = CounterMetricFamily(
            "nestvec_vector_cache_hits", "Inputs whose vector was kept.", labels=["tier"]
        )
        hits.add_metric(["memory"], counts.hits - counts.stored_hits)
        hits.add_metric(["file"], counts.stored_hits)
        yield hits
        for name, text, value in (
            ("misses", "Inputs whose vector was not kept.", counts.misses),
            (
                "saved_tokens",
                "Tokens that were not run, as their vector was kept.",
                counts.saved_tokens,
            ),
            ("coalesced_inputs", "Inputs that waited for the same one's run.", counts.coalesced),
        ):
            yield CounterMetricFamily(f"nestvec_vector_cache_{name}", text, value=value)
        held = self.cache.held_bytes
        yield GaugeMetricFamily("nestvec_vector_cache_bytes", "What kept vectors take.", value=held)
        entries = self.cache.entries
        yield GaugeMetricFamily("nestvec_vector_cache_entries", "Kept vectors.", value=entries)
