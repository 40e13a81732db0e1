"""What is learned and told of batches that ran: the cost model learns how long they take, the observer counts them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nestvec.engine.core.batching.fair_queue import Entry
from nestvec.engine.core.work_queue import WorkQueue
from nestvec.engine.observer import BatchStats, Observer


@dataclass(frozen=True, slots=True)
class BatchReporter:
    """Reports the batches of one core.

    Attributes:
        model: Name for the observer.
        queue: Learns how long batches take.
        observer: Told of each batch.
        clock: Monotonic seconds.
    """

    model: str
    queue: WorkQueue
    observer: Observer
    clock: Callable[[], float]

    def report(self, entries: Sequence[Entry], started_s: float, *, failed: bool = False) -> None:
        """Report a batch that has just ended.

        Args:
            entries: What it held, at least one entry.
            started_s: Monotonic time when it began.
            failed: Whether it gave nothing; nothing is learned from its time then.
        """
        took_s = self.clock() - started_s
        lengths = [entry.item.tokens for entry in entries]
        prediction_error = None if failed else self.queue.learn(entries, took_s)
        stats = BatchStats(
            items=len(entries),
            tokens=sum(lengths),
            padded_tokens=len(entries) * max(lengths),
            waits_s=tuple(max(0.0, started_s - entry.arrived_s) for entry in entries),
            engine_s=took_s,
            outcome="error" if failed else "ok",
            prediction_error=prediction_error,
            traces=_traced(entries, started_s),
        )
        self.observer.batch_done(self.model, stats)


def _traced(entries: Sequence[Entry], started_s: float) -> dict[str, float]:
    """Return the longest wait of the items of each call that is recorded."""
    waits_s: dict[str, float] = {}
    for entry in entries:
        if trace := entry.options.trace:
            wait_s = max(0.0, started_s - entry.arrived_s)
            waits_s[trace] = max(wait_s, waits_s.get(trace, 0.0))
    return waits_s
