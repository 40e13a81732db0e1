"""What the engine tells whoever counts: metrics, traces, logs, tests."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Protocol

from nestvec.engine.results import LongInput, Timings

# By what the observer knows the call that the running task makes, where it records what becomes of it. The engine hands
# it on with the call's items, and back with the batches that they are in; it means nothing here.
current_trace: Final[ContextVar[str]] = ContextVar("current_trace", default="")


@dataclass(frozen=True, slots=True)
class BatchStats:
    """What one micro-batch held and took.

    Attributes:
        items: Number of items, B.
        tokens: Number of real tokens, T.
        padded_tokens: B x S, what a padded batch would hold.
        waits_s: Queue wait of each item.
        engine_s: Time spent in collation, graph and pooling.
        outcome: "ok" or "error".
        prediction_error: |predicted - real| / real engine time; None where nothing was predicted.
        traces: Of each call in it that the observer records, by its `ItemOptions.trace`, the longest queue wait of its
            items.
    """

    items: int
    tokens: int
    padded_tokens: int
    waits_s: tuple[float, ...]
    engine_s: float
    outcome: str
    prediction_error: float | None = None
    traces: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VectorsGiven:
    """What kind of dense vectors a call was answered with; every value is from a closed set.

    Attributes:
        rows: How many.
        dimensions: How many values each has; 0 for a number that the model was not trained for.
        dtypes: What they were given in.
        has_all_layers: Whether they come from the last layer.
        is_mapped: Whether they went through a map.
        prompt: Name of the model's prompt that stood before the texts; "" for none, "literal" for the caller's own.
    """

    rows: int
    dimensions: int
    dtypes: tuple[str, ...]
    has_all_layers: bool
    is_mapped: bool
    prompt: str


class Observer(Protocol):
    """Is told what happens in the engine; called from several threads."""

    def batch_done(self, model: str, stats: BatchStats) -> None:
        """Note that a micro-batch has run."""

    def queue_changed(self, model: str, *, items: int, tokens: int, seconds: float) -> None:
        """Note how many items and tokens wait, and the seconds that they take, after some joined or left the queue."""

    def call_done(
        self, model: str, timings: Timings, *, inputs: int, tokens: int, truncated: int
    ) -> None:
        """Note that a call was answered with all its vectors."""

    def vectors_given(self, model: str, given: VectorsGiven) -> None:
        """Note what kind of vectors a call was answered with."""

    def inputs_were_long(self, model: str, inputs: Sequence[LongInput]) -> None:
        """Note that inputs of an answered call were longer than the model takes."""

    def tokens_were_unknown(self, model: str, tokens: int) -> None:
        """Note that an answered call had tokens that stand for what the vocabulary lacks."""

    def items_dropped(self, model: str, *, items: int, reason: str) -> None:
        """Note that items left without a vector: "cancelled", "deadline", "queue_full" or "failed"."""

    def memory_was_short(self, model: str) -> None:
        """Note that a batch did not fit into memory."""

    def probes_checked(self, model: str, *, passed: bool) -> None:
        """Note that the vectors of the probe texts were compared with the stored ones, at the start of a model."""

    def call_refused(self, model: str, reason: str) -> None:
        """Note that a call was refused: "queue_full", "wait_too_long" or "deadline"."""

    def wait_was_predicted(self, model: str, error: float) -> None:
        """Note by how much the time that was foreseen for a call was wrong, relative to the real one."""


class NullObserver:
    """Counts nothing; for offline use and tests."""

    def batch_done(self, model: str, stats: BatchStats) -> None:
        """Do nothing."""

    def queue_changed(self, model: str, *, items: int, tokens: int, seconds: float) -> None:
        """Do nothing."""

    def call_refused(self, model: str, reason: str) -> None:
        """Do nothing."""

    def wait_was_predicted(self, model: str, error: float) -> None:
        """Do nothing."""

    def call_done(
        self, model: str, timings: Timings, *, inputs: int, tokens: int, truncated: int
    ) -> None:
        """Do nothing."""

    def vectors_given(self, model: str, given: VectorsGiven) -> None:
        """Do nothing."""

    def inputs_were_long(self, model: str, inputs: Sequence[LongInput]) -> None:
        """Do nothing."""

    def tokens_were_unknown(self, model: str, tokens: int) -> None:
        """Do nothing."""

    def items_dropped(self, model: str, *, items: int, reason: str) -> None:
        """Do nothing."""

    def memory_was_short(self, model: str) -> None:
        """Do nothing."""

    def probes_checked(self, model: str, *, passed: bool) -> None:
        """Do nothing."""
