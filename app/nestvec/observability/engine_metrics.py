"""Metrics of the engine: inputs, micro-batches, the queue; implements the engine's `Observer`."""

from collections.abc import Callable, Sequence
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from nestvec.engine.observer import BatchStats, VectorsGiven
from nestvec.engine.results import LongInput, Timings
from nestvec.observability.metric_buckets import SECONDS
from nestvec.observability.series import Series

TOKENS: Final = (1, 4, 16, 32, 64, 128, 256, 384, 512, 768, 1024, 2048, 4096, 16384, 65536)
ITEMS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
# How several engine processes' queues of one model are one.
GaugeMode = Literal["livesum", "livemax"]
ERROR_RATIO: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
RATIO: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


class EngineMetrics:
    """The `Observer` that counts what the engine does, by model; safe to call from any thread.

    Args:
        registry: Where the metrics live.

    Attributes:
        record_batch: Told of each micro-batch with calls whose spans are recorded; None where no spans are.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.record_batch: Callable[[str, BatchStats], None] | None = None

        def counter(name: str, text: str, *labels: str) -> Series[Counter]:
            return Series(Counter(name, text, ["model", *labels], registry=registry))

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Series[Histogram]:
            return Series(Histogram(name, text, ["model"], buckets=buckets, registry=registry))

        def gauge(name: str, text: str, of_all: GaugeMode) -> Series[Gauge]:
            return Series(Gauge(name, text, ["model"], registry=registry, multiprocess_mode=of_all))

        self._inputs = counter("nestvec_inputs_total", "Inputs answered with a vector.")
        self._tokens = counter("nestvec_tokens_total", "Tokens of those inputs.")
        self._batch_outcomes = counter("nestvec_batches_total", "Micro-batches run.", "outcome")
        self._truncated = counter("nestvec_truncated_inputs_total", "Inputs that were cut.")
        self._dropped_tokens = counter(
            "nestvec_truncated_tokens_total",
            "Tokens cut off; the least, where not all were counted.",
        )
        self._unknown_tokens = counter(
            "nestvec_unknown_tokens_total", "Tokens that stand for what the vocabulary lacks."
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
        self._make_call_metrics(counter, histogram)
        self._make_vector_metrics(counter)
        self._make_queue_metrics(counter, gauge, histogram)

    def _make_call_metrics(
        self,
        counter: Callable[..., Series[Counter]],
        histogram: Callable[..., Series[Histogram]],
    ) -> None:
        """Make the metrics of calls' sizes, and of what is checked before there are any."""
        self._call_inputs = histogram(
            "nestvec_request_inputs", "Inputs of a call.", tuple(map(float, ITEMS))
        )
        self._call_tokens = histogram(
            "nestvec_request_tokens", "Tokens of a call.", tuple(map(float, TOKENS))
        )
        self._probes = counter(
            "nestvec_model_probes_total",
            "Checks of a model's vectors against stored ones, as it was loaded.",
            "outcome",
        )

    def _make_vector_metrics(self, counter: Callable[..., Series[Counter]]) -> None:
        """Make the metrics of what is asked of vectors."""
        self._vectors = counter(
            *("nestvec_vectors_total", "Dense vectors given, by what was asked for."),
            *("dimensions", "dtype", "layers", "map"),
        )
        self._prompted = counter(
            "nestvec_prompted_vectors_total",
            "Dense vectors behind a prompt, by its name.",
            "prompt",
        )

    def _make_queue_metrics(
        self,
        counter: Callable[..., Series[Counter]],
        gauge: Callable[..., Series[Gauge]],
        histogram: Callable[..., Series[Histogram]],
    ) -> None:
        """Make the metrics of what waits and of what is refused."""
        self._queue_items = gauge("nestvec_queue_items", "Inputs waiting.", "livesum")
        self._queue_tokens = gauge("nestvec_queue_tokens", "Tokens waiting.", "livesum")
        self._queue_seconds = gauge(
            "nestvec_queue_seconds", "Predicted time that what waits will take.", "livemax"
        )
        self._refused = counter(
            "nestvec_refused_requests_total", "Requests refused for the queue's sake.", "reason"
        )
        self._wait_error = histogram(
            "nestvec_wait_prediction_error_ratio",
            "How far the time foreseen for a request that had to wait was off, relative to the real one.",
            ERROR_RATIO,
        )
        self._queue_wait = histogram(
            "nestvec_queue_wait_seconds", "Wait of each input for its batch.", SECONDS
        )

    def start_series(self, model: str) -> None:
        """Start all series of a model at zero, so that rates work from the first scrape."""
        for counter in (
            *(self._inputs, self._tokens),
            *(self._truncated, self._dropped_tokens, self._windowed, self._shortages),
            self._unknown_tokens,
        ):
            counter.begin(model)
        for histogram in (
            *(self._queue_wait, self._tokenization, self._engine),
            *(self._batch_tokens, self._batch_items, self._packing, self._prediction_error),
            *(self._wait_error, self._call_inputs, self._call_tokens),
        ):
            histogram.begin(model)
        for outcome in ("ok", "error"):
            self._batch_outcomes.begin(model, outcome)
        for reason in ("cancelled", "deadline", "queue_full", "failed"):
            self._dropped.begin(model, reason)
        for reason in ("queue_full", "wait_too_long", "deadline"):
            self._refused.begin(model, reason)
        self.queue_changed(model, items=0, tokens=0, seconds=0.0)

    def batch_done(self, model: str, stats: BatchStats) -> None:
        """Count a micro-batch that has run."""
        self._batch_outcomes[model, stats.outcome].inc()
        self._engine[model].observe(stats.engine_s)
        self._batch_tokens[model].observe(stats.tokens)
        self._batch_items[model].observe(stats.items)
        self._packing[model].observe(stats.tokens / stats.padded_tokens)
        if stats.prediction_error is not None:
            self._prediction_error[model].observe(stats.prediction_error)
        waits = self._queue_wait[model]
        for wait_s in stats.waits_s:
            waits.observe(wait_s)
        if stats.traces and self.record_batch is not None:
            self.record_batch(model, stats)

    def call_refused(self, model: str, reason: str) -> None:
        """Count a call that was refused."""
        self._refused[model, reason].inc()

    def wait_was_predicted(self, model: str, error: float) -> None:
        """Note by how much the time foreseen for a call was wrong."""
        self._wait_error[model].observe(error)

    def queue_changed(self, model: str, *, items: int, tokens: int, seconds: float) -> None:
        """Note how much waits, as items have joined or left the queue."""
        self._queue_seconds[model].set(seconds)
        self._queue_items[model].set(items)
        self._queue_tokens[model].set(tokens)

    def call_done(
        self, model: str, timings: Timings, *, inputs: int, tokens: int, truncated: int
    ) -> None:
        """Count a call that was answered with all its vectors."""
        self._inputs[model].inc(inputs)
        self._tokens[model].inc(tokens)
        if truncated:
            self._truncated[model].inc(truncated)
        self._call_inputs[model].observe(inputs)
        self._call_tokens[model].observe(tokens)
        self._tokenization[model].observe(timings.tokenize_s)

    def vectors_given(self, model: str, given: VectorsGiven) -> None:
        """Count vectors by what was asked for."""
        dimensions = str(given.dimensions) if given.dimensions else "other"
        layers = "all" if given.has_all_layers else "some"
        for dtype in given.dtypes:
            labels = (model, dimensions, dtype, layers, "yes" if given.is_mapped else "no")
            self._vectors[labels].inc(given.rows)
        if given.prompt:
            self._prompted[model, given.prompt].inc(given.rows)

    def inputs_were_long(self, model: str, inputs: Sequence[LongInput]) -> None:
        """Count inputs of an answered call that were longer than the model takes."""
        self._dropped_tokens[model].inc(sum(item.dropped_tokens for item in inputs))
        self._windowed[model].inc(sum(item.windows > 1 for item in inputs))

    def tokens_were_unknown(self, model: str, tokens: int) -> None:
        """Count tokens of an answered call that stand for what the vocabulary lacks."""
        self._unknown_tokens[model].inc(tokens)

    def items_dropped(self, model: str, *, items: int, reason: str) -> None:
        """Count items that left the queue without a vector."""
        self._dropped[model, reason].inc(items)

    def memory_was_short(self, model: str) -> None:
        """Count a micro-batch that did not fit into memory."""
        self._shortages[model].inc()

    def probes_checked(self, model: str, *, passed: bool) -> None:
        """Count a check of a model's probes."""
        for outcome in ("passed", "failed"):
            self._probes[model, outcome].inc(outcome == ("passed" if passed else "failed"))
