"""Metrics of files and batches, by the process that runs them."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from nestvec.observability.shared_metrics import summed_gauge


class JobMetrics:
    """Tells what a runner of batches does, and what its store holds.

    Args:
        registry: Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lines = Counter(
            "nestvec_batch_job_lines_total",
            "Requests of batches that were answered or refused.",
            ["outcome"],
            registry=registry,
        )
        self._claims = Counter(
            "nestvec_batch_job_claims_total", "Chunks of batches begun.", registry=registry
        )
        self._lost_claims = Counter(
            "nestvec_batch_job_claims_lost_total",
            "Chunks of batches that another server finished, as this one was silent for too long.",
            registry=registry,
        )
        self._ended = Counter(
            "nestvec_batch_jobs_ended_total",
            "Batches that have ended, by how.",
            ["status"],
            registry=registry,
        )
        self._store_down = Gauge(
            "nestvec_batch_store_down",
            "1 while files and batches cannot be read or written.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._batches = Gauge(
            "nestvec_batch_jobs",
            "Batches that have not ended.",
            ["status"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._oldest_s = summed_gauge(
            registry,
            "nestvec_batch_job_oldest_seconds",
            "Age of the oldest batch that has not ended.",
        )
        self._bytes = summed_gauge(
            registry, "nestvec_stored_files_bytes", "Size of all stored files."
        )
        for outcome in ("completed", "failed"):
            self._lines.labels(outcome)
        for status in ("completed", "failed", "expired", "cancelled"):
            self._ended.labels(status)

    def chunk_claimed(self) -> None:
        """Count a chunk that was begun."""
        self._claims.inc()

    def claim_lost(self) -> None:
        """Count a chunk that another server finished."""
        self._lost_claims.inc()

    def lines_done(self, completed: int, failed: int) -> None:
        """Count answered and refused requests."""
        self._lines.labels("completed").inc(completed)
        self._lines.labels("failed").inc(failed)

    def batch_ended(self, status: str) -> None:
        """Count a batch that has ended."""
        self._ended.labels(status).inc()

    def store_answers(self, *, is_up: bool) -> None:
        """Note whether the store does what is asked of it."""
        self._store_down.set(0 if is_up else 1)

    def counted(self, batches: Mapping[str, int], oldest_s: int, stored_bytes: int) -> None:
        """Show what the store holds.

        Args:
            batches: Number of batches by each status that is not final.
            oldest_s: Age of the oldest batch that has not ended, in seconds; 0 without one.
            stored_bytes: Size of all files.
        """
        for status, count in batches.items():
            self._batches.labels(status).set(count)
        self._oldest_s.set(oldest_s)
        self._bytes.set(stored_bytes)
