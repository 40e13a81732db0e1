"""Fakes: a backend whose vectors tell which tokens made them, a clock that moves when told, an observer that keeps."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nestvec.engine.backend import Backend, BackendInfo, CostModel
from nestvec.engine.core.batching.batching_policy import BatchingOptions
from nestvec.engine.core.engine_core import CoreOptions, EngineCore
from nestvec.engine.observer import BatchStats, Observer, VectorsGiven
from nestvec.engine.results import LongInput, Timings
from nestvec.engine.types import (
    Batch,
    FloatArray,
    IdArray,
    Item,
    ItemOptions,
    Layout,
    RawOutput,
    Submission,
)
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import BackendLostError, BackendMemoryError
from numpy.typing import NDArray

HIDDEN = 8
FAKE_INFO = BackendInfo(Layout.PACKED, "cpu", HIDDEN, gives_tokens=True, layers=3, gives_exits=True)
BAD_ID = 666  # an input with this id makes a run fail
# An input with this id needs more memory than there is, unless it runs alone in its batch.
HUGE_ID = 665
LOST_ID = 664  # an input with this id takes the device with it
NAN_ID = 667  # an input with this id gives NaN
ZERO_ID = 668  # an input with this id gives zeros


def fake_vector(ids: Sequence[int] | IdArray) -> FloatArray:
    """Return the vector that FakeBackend gives for token ids, (HIDDEN,), float32; any swap of rows or tokens shows."""
    states = fake_states(ids)
    vector: FloatArray = states.sum(axis=0).astype(np.float32) / np.float32(len(states))
    return vector


def fake_states(ids: Sequence[int] | IdArray) -> NDArray[np.float64]:
    """Return the token states that FakeBackend gives, (n, HIDDEN)."""
    tokens = np.asarray(ids, np.float64)
    if NAN_ID in tokens:
        return np.full((len(tokens), HIDDEN), np.nan)
    if ZERO_ID in tokens:
        return np.zeros((len(tokens), HIDDEN))
    places = np.arange(1, len(tokens) + 1)
    waves = np.sin(tokens[:, None] * np.arange(1, HIDDEN + 1) + places[:, None])
    # On a grid, so that sums are exact in any order and precision.
    states: NDArray[np.float64] = np.round(waves * 1024) / 1024
    return states


def exit_states(states: FloatArray, layer: int, layers: int) -> FloatArray:
    """Return FakeBackend's states after an earlier layer: the last layer's, rolled by a column per missing layer."""
    rolled: FloatArray = np.roll(states, layers - layer, axis=1)
    return rolled


@dataclass
class FakeBackend:
    """Runs batches without a graph.

    Attributes:
        rows_in_memory: How many rows a batch with HUGE_ID may have.
        gate: Cleared, it holds every run until it is set.
        batches: Lengths of each batch seen.
        exits: Exits that each batch asked for.
    """

    info: BackendInfo = FAKE_INFO
    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[list[int]] = field(default_factory=list)
    exits: list[tuple[int, ...]] = field(default_factory=list)
    started: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    is_closed: bool = False
    rows_in_memory: int = 1

    def __post_init__(self) -> None:
        """Open the gate, so that runs are not held up."""
        self.gate.set()
        self._cost = CostModel(self.info.layout, 0.0)

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch by its plain tokens."""
        return self._cost(lengths)

    def run(self, batch: Batch) -> RawOutput:
        """Return the states or vectors of the ids, or raise the failure that an id asks for."""
        self.started.release()
        self.gate.wait(10)
        self.batches.append(batch.lengths.tolist())
        ids = batch.arrays["ids"]
        rows = [ids[a:b] for a, b in zip(batch.offsets[:-1], batch.offsets[1:], strict=True)]
        if any(HUGE_ID in row for row in rows) and len(rows) > self.rows_in_memory:
            raise BackendMemoryError("no memory")
        if any(LOST_ID in row for row in rows):
            raise BackendLostError("the GPU is lost")
        if any(BAD_ID in row for row in rows):
            raise RuntimeError("secret text of a caller")
        if not self.info.gives_tokens:
            return RawOutput(pooled=np.stack([fake_vector(row) for row in rows]))
        states = np.concatenate([fake_states(row) for row in rows]).astype(np.float32)
        exits = batch.exits or (self.info.layers,)
        self.exits.append(batch.exits)
        *earlier, last = [exit_states(states, layer, self.info.layers) for layer in exits]
        return RawOutput(hidden=last, earlier=tuple(earlier))

    def close(self) -> None:
        """Remember that the backend was closed."""
        self.is_closed = True


@dataclass
class FakeClock:
    """A clock that moves only when told."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


@dataclass
class RecordingObserver:
    """Keeps what the engine says, and passes it on to `also`."""

    batches: list[BatchStats] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    calls: list[tuple[int, int, int]] = field(default_factory=list)
    queue: tuple[int, int] = (0, 0)
    long: list[LongInput] = field(default_factory=list)
    memory_shortages: int = 0
    unknown_tokens: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wait_errors: list[float] = field(default_factory=list)
    also: Observer | None = None

    def batch_done(self, model: str, stats: BatchStats) -> None:
        """Keep what was told, and pass it on."""
        self.batches.append(stats)
        if self.also:
            self.also.batch_done(model, stats)

    def queue_changed(self, model: str, *, items: int, tokens: int, seconds: float) -> None:
        """Keep the newest state of the queue, and pass it on."""
        self.queue = (items, tokens)
        if self.also:
            self.also.queue_changed(model, items=items, tokens=tokens, seconds=seconds)

    def call_refused(self, model: str, reason: str) -> None:
        """Count it, and pass it on."""
        self.refused[reason] += 1
        if self.also:
            self.also.call_refused(model, reason)

    def wait_was_predicted(self, model: str, error: float) -> None:
        """Keep it, and pass it on."""
        self.wait_errors.append(error)
        if self.also:
            self.also.wait_was_predicted(model, error)

    def call_done(
        self, model: str, timings: Timings, *, inputs: int, tokens: int, truncated: int
    ) -> None:
        """Keep what was told, and pass it on."""
        self.calls.append((inputs, tokens, truncated))
        if self.also:
            self.also.call_done(model, timings, inputs=inputs, tokens=tokens, truncated=truncated)

    def vectors_given(self, model: str, given: VectorsGiven) -> None:
        """Pass it on."""
        if self.also:
            self.also.vectors_given(model, given)

    def inputs_were_long(self, model: str, inputs: Sequence[LongInput]) -> None:
        """Keep what was told, and pass it on."""
        self.long += inputs
        if self.also:
            self.also.inputs_were_long(model, inputs)

    def tokens_were_unknown(self, model: str, tokens: int) -> None:
        """Count it, and pass it on."""
        self.unknown_tokens += tokens
        if self.also:
            self.also.tokens_were_unknown(model, tokens)

    def items_dropped(self, model: str, *, items: int, reason: str) -> None:
        """Count it, and pass it on."""
        self.dropped[reason] += items
        if self.also:
            self.also.items_dropped(model, items=items, reason=reason)

    def memory_was_short(self, model: str) -> None:
        """Count it, and pass it on."""
        self.memory_shortages += 1
        if self.also:
            self.also.memory_was_short(model)

    def probes_checked(self, model: str, *, passed: bool) -> None:
        """Pass it on."""
        if self.also:
            self.also.probes_checked(model, passed=passed)


def item(*ids: int, index: int = 0) -> Item:
    """Return an item of these token ids."""
    return Item(np.asarray(ids, np.int32), index)


def submission(*items: Item, **options: Any) -> Submission:
    """Return a call of these items, with these options of `ItemOptions`."""
    return Submission(ItemOptions(**options), items)


def fake_core(
    backend: Backend,
    observer: RecordingObserver | None = None,
    *,
    workers: int = 1,
    budget: int = 32,
    max_queue_tokens: int = 10_000,
    max_queue_wait_s: float = 3600.0,
    first_token_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> EngineCore:
    """Return a started core over a fake backend."""
    batching = BatchingOptions(
        workers=workers,
        max_batch_tokens=budget,
        lookahead_items=64,
        max_queue_tokens=max_queue_tokens,
        max_queue_wait_s=max_queue_wait_s,
        max_batch_s=60.0,
        first_token_s=first_token_s,
    )
    options = CoreOptions(batching, Pooler("mean"))
    core = EngineCore("fake", backend, options, observer or RecordingObserver(), clock)
    core.start()
    return core
