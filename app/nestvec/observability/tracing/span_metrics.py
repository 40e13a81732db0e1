"""What became of spans that were recorded and have not reached a collector."""

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter


class SpanLoss(StrEnum):
    """Why a span was lost."""

    QUEUE_FULL = "queue_full"
    NOT_EXPORTED = "not_exported"


class SpanMetrics:
    """Counts spans that were lost; safe to call from any thread.

    Args:
        registry: Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        lost = Counter(
            "nestvec_lost_spans_total",
            "Recorded spans that no collector got.",
            ["reason"],
            registry=registry,
        )
        # Shown from the start on, as 0: an alert's increase is of something that was there before.
        self._lost = {reason: lost.labels(reason.value) for reason in SpanLoss}

    def lose(self, reason: SpanLoss, spans: int = 1) -> None:
        """Note spans that were lost."""
        self._lost[reason].inc(spans)
